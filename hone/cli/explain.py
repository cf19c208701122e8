"""`hone explain`: a code, a setting or a word of the trade in a few lines, in English or Chinese."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from hone.cli.knowledge import Page, look_up
from hone.cli.style import console, pairs, paragraph
from hone.core.errors import HoneError, catalogue
from hone.core.terms import glossary


def command(
    term: Annotated[list[str] | None, typer.Argument(help="D012, learning rate, optim.learning_rate, optim ...")] = None,
    lang: Annotated[str, typer.Option(help="en or zh")] = "en",
) -> None:
    """What a code, a setting or a word means. Without one, all that can be asked for."""
    if lang not in ("en", "zh"):
        raise HoneError("C001", f"'{lang}' is no language of the glossary", where="--lang", fix="use --lang en or --lang zh")
    out = console()
    if term:
        show(out, look_up(" ".join(term), lang))
    else:
        contents(out)


def show(out: Console, page: Page) -> None:
    """Print one page."""
    paragraph(out, page.title, style="bold")
    for part in filter(None, page.text.split("\n")):
        paragraph(out, part)
    if page.lines:
        out.print()
        pairs(out, page.lines)
    if page.see:
        out.print()
        pairs(out, [("see", ", ".join(page.see))])


def contents(out: Console) -> None:
    """Print what there is to ask for."""
    paragraph(out, "hone explain CODE, SETTING or WORD", style="bold")
    words = ", ".join(term.names[0] for term in glossary().values())
    pairs(
        out,
        [
            ("codes", f"{', '.join(catalogue())}; their titles: hone list errors"),
            ("settings", "a section such as optim, a setting such as optim.learning_rate, a method such as lora"),
            ("words", words),
        ],
    )
