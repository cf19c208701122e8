"""`hone prove`: the claims about a run, proved on a small copy of it before it costs anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hone.prove.base import Result
    from hone.recipe.proving import Proved

FAILED = 1


def command(
    source: Annotated[str, typer.Argument(help="A run file (.yaml), a run folder, or an objective with settings behind it.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Settings as name=value, as for hone train.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print proof.json instead of a table.")] = False,
) -> int:
    """Prove what must be true of a run: one gradient, the right tokens, what is saved is what was trained. Ends with 1 if a proof fails."""
    import json

    from hone.cli.style import console, paragraph
    from hone.recipe.run import folder_of
    from hone.recipe.settings import resolve

    out = console()
    raw, notes = _read(source, settings or [])
    for note in [] if as_json else notes:
        paragraph(out, f"note: {note}", style="dim")
    proved = prove_and_show(raw, None if as_json else out)
    folder = Path(source) if Path(source).is_dir() else folder_of(resolve(raw))
    file = proved.save(folder)
    _renew_card(folder)
    if as_json:
        typer.echo(json.dumps(proved.document, indent=1, ensure_ascii=False))
    else:
        paragraph(out, f"written to {file}")
    return 0 if proved.holds else FAILED


def _read(source: str, settings: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The settings of a run folder, or of what `hone train` takes."""
    from hone.recipe.words import read
    from hone.recipe.written import settings_in

    if not Path(source).is_dir():
        return read(source, settings)
    if settings:
        from hone.core.errors import HoneError

        raise HoneError("C005", "a run folder has its settings already", where=settings[0], fix="leave it out, or prove a run file instead")
    return settings_in(Path(source)), []


def _renew_card(folder: Path) -> None:
    """A model card that is there already shows the new proofs."""
    from hone.report.card import write_card

    if (folder / "README.md").is_file() and (folder / "resolved.json").is_file():
        write_card(folder)


def prove_and_show(raw: dict[str, Any], out: Console | None) -> Proved:
    """Carry out all proofs, each shown as it ends."""
    from functools import partial

    from hone.cli.style import paragraph
    from hone.recipe.proving import prove_run

    proved = prove_run(raw) if out is None else prove_run(raw, tell=partial(_show, out))
    if out is not None:
        small, failed = proved.document["small"], [result for result in proved.results if not result.holds]
        muted = sum(result.measured is None for result in proved.results)
        count = len(proved.results) - muted
        size = f"{small['architecture']} of {small['layers']} layers, {small['hidden']} wide"
        paragraph(out, f"{count - len(failed)} of {count} proofs hold, {muted} do not apply", style="bold red" if failed else "bold green")
        paragraph(out, f"on a {size}; {proved.document['seconds']} s", style="dim")
    return proved


def _show(out: Console, result: Result) -> None:
    """One line for a proof that holds, and everything that is known of one that does not."""
    from rich.text import Text

    from hone.cli.style import beside

    if result.measured is None:
        beside(out, f"-    {result.name}", result.where, width=20, indent=0, style="dim")
        return
    mark, style = ("ok", "green") if result.holds else ("FAIL", "bold red")
    numbers = f"{number(result.measured):>8} <= {number(result.bound)} {result.unit}"
    out.print(Text.assemble((f"{mark:<5}", style), f"{result.name:<15}", numbers), soft_wrap=True)
    if result.holds:
        return
    for label, text in (("claim", result.says), ("where", result.where), ("cause", result.cause), ("more", f"hone explain {result.code}")):
        beside(out, label, text or "everywhere", width=8, indent=5)


def number(value: float) -> str:
    """A measured number in few characters."""
    return "none" if value != value or value in (float("inf"), float("-inf")) else f"{value:.2g}"
