"""`hone export`: take what was trained to where it will be used, and prove that it arrived."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hone.export import Artifact, Source


def command(
    run: Annotated[str, typer.Argument(help="Run folder, adapter, model folder or hub id.")],
    to: Annotated[list[str], typer.Option("--to", help="adapter, merged, gguf ...; several with commas. `hone list exports` tells all.")],
    quant: Annotated[str | None, typer.Option(help="For merged: bf16, f16, f32, nf4, int8. For gguf: Q8_0, Q4_0, F16, Q4_K_M ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the artifacts; without it, export/ in the run.")] = None,
    repo: Annotated[str | None, typer.Option(help="For hub: OWNER/NAME.")] = None,
    private: Annotated[bool, typer.Option("--private", help="For hub: make the repository private.")] = False,
    check: Annotated[bool, typer.Option("--verify/--no-verify", help="Replay the certificate on what was written.")] = True,
) -> int:
    """Write artifacts for other programs. Each is staged and gets its name only when it is whole."""
    from hone.cli.style import console, paragraph
    from hone.cli.verify import FAILED
    from hone.export.proof.diagnose import Verdict
    from hone.recipe.exporting import Wanted, export, open_source
    from hone.recipe.verifying import checked_copy

    terminal = console()
    source = open_source(run)
    targets = tuple(dict.fromkeys(name for listed in to for name in listed.split(",") if name))
    folder = out if out is not None else _beside(Path(run), source)
    wanted = Wanted(targets=targets, out=folder, quant=quant, repo=repo, private=private)
    checker = partial(checked_copy, golden=source.golden) if check else None
    artifacts = export(source, wanted, tell=lambda line: paragraph(terminal, line, style="dim"), check=checker)
    for artifact in artifacts:
        _show(artifact, terminal)
    return FAILED if any(isinstance(artifact.checked, Verdict) and not artifact.checked.passed for artifact in artifacts) else 0


def _beside(given: Path, source: Source) -> Path:
    """In the run or the adapter's folder; for a model from elsewhere, here."""
    ours = source.adapter is not None or (given / "resolved.json").is_file()
    return given / "export" if ours else Path("export")


def _show(artifact: Artifact, terminal: Console) -> None:
    from hone.cli.style import paragraph
    from hone.cli.verify import show
    from hone.report.terminal import tame

    terminal.print(f"\n{artifact.target}: {artifact.path}", style="bold", soft_wrap=True)
    if isinstance(artifact.checked, str):
        later = f"; later: hone verify {shlex.quote(str(artifact.path))}" if artifact.path.exists() else ""
        paragraph(terminal, f"not verified: {artifact.checked}{later}" if artifact.checked else "", indent=2)
    else:
        show(artifact.checked, terminal)
    for note in artifact.notes:
        paragraph(terminal, note, indent=2)
    for line in artifact.commands:
        terminal.print(f"  $ {tame(line)}", style="cyan", soft_wrap=True)  # never broken over lines, so that it can be copied
