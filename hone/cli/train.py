"""`hone train`: from a model and data to a run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console


def command(
    source: Annotated[str, typer.Argument(help="An objective (sft, cpt ...) or a run file (.yaml).")],
    settings: Annotated[list[str] | None, typer.Argument(help="Settings as name=value: model=..., data=..., optim.epochs=2.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, even where the run folder holds checkpoints.")] = False,
    allow_data_change: Annotated[bool, typer.Option("--allow-data-change", help="Resume although the data has changed.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out rows that cannot be read, and count them.")] = False,
    prove: Annotated[bool, typer.Option("--prove", help="First prove the run on a small copy of it, as hone prove does.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and the first example; train nothing.")] = False,
) -> int:
    """Train a model on data. The same command on the same folder goes on where it stopped."""
    from hone.cli.show import show_run
    from hone.cli.style import commands, console, paragraph, program
    from hone.recipe.run import Wishes, prepare_run, train_run
    from hone.recipe.words import read

    out = console()
    raw, notes = read(source, [*(settings or ()), *(["data.skip_bad=true"] if skip_bad else [])])
    for note in notes:
        paragraph(out, f"note: {note}", style="dim")
    if prove and not _proved(raw, out):
        return 1
    run = prepare_run(raw, out)
    show_run(run, out)
    if dry_run:
        return 0
    status = train_run(run, Wishes(fresh=fresh, allow_data_change=allow_data_change))
    if status == 0:
        paragraph(out, f"\ndone: {run.folder}")
        folder, name = str(run.folder), program()
        commands(out, [("look", f"{folder}/report.html"), ("try", f"{name} chat {folder}"), ("score", f"{name} eval {folder}")])
    else:
        paragraph(out, f"\nstopped and saved: the same command goes on from {run.folder}")
    return status


def _proved(raw: dict[str, Any], out: Console) -> bool:
    """Whether all proofs hold; their record goes into the run folder."""
    from hone.cli.prove import prove_and_show
    from hone.recipe.run import folder_of
    from hone.recipe.settings import resolve

    proved = prove_and_show(raw, out)
    proved.save(folder_of(resolve(raw)))
    return proved.holds
