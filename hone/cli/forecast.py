"""`hone forecast`: the held-out loss that a run will end with, and what twice the data would give."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; several on different amounts of data tell what more data would give.")],
) -> None:
    """Where a run's loss is going, with an 80 % interval, once 15 % of it are done."""
    from hone.cli.style import console, pairs, paragraph
    from hone.core.errors import HoneError
    from hone.recipe.foresight import outlook, text, twice
    from hone.report.folder import read_run

    out = console()
    pairs(out, [(folder.name, str(outlook(read_run(folder)))) for folder in runs])
    try:
        rows, found = twice(runs)
        paragraph(out, f"\ntwice the data, {rows:,} rows: about {text(found)}")
    except HoneError as error:
        if len(runs) > 1:
            raise
        paragraph(out, f"\nwhat twice the data would give cannot be told from one run: {error.fix}", style="dim")
