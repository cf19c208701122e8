"""How the command line looks: plain words, little colour, any width from 60 columns on, and clean text in pipes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from shutil import which

from rich.console import Console
from rich.text import Text

from hone.report.terminal import tame

LABEL = "dim"
INDENT = 2


def console(*, stderr: bool = False) -> Console:
    """A console that colours only a terminal (never with NO_COLOR) and takes no text for markup."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def paragraph(out: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    """Print text that may come from anywhere; on a terminal its lines are broken between words."""
    for line in _lines(out, text, indent):
        out.print(Text(" " * indent + line, style=style), soft_wrap=True)


def beside(out: Console, label: str, text: str, *, width: int, indent: int = INDENT, style: str = LABEL) -> None:
    """Print text to the right of a label; what does not fit goes on under it, not under the label."""
    first, *rest = _lines(out, text, indent + width) or [""]
    out.print(Text.assemble(" " * indent, (label.ljust(width) if first else label, style), first), soft_wrap=True)
    for line in rest:
        out.print(Text(" " * (indent + width) + line), soft_wrap=True)


def pairs(out: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print labels and their texts in two columns."""
    rows = list(rows)
    width = max((len(label) for label, _ in rows), default=0) + 2
    for label, text in rows:
        beside(out, label, text, width=width)


def commands(out: Console, rows: Iterable[tuple[str, str]]) -> None:
    """Print labels and paths or commands; these are never broken over lines, so that they can be copied."""
    rows = list(rows)
    width = max(len(label) for label, _ in rows) + 2
    for label, text in rows:
        out.print(Text.assemble(" " * INDENT, (label.ljust(width), LABEL), tame(text)), soft_wrap=True)


def program() -> str:
    """How hone is called here: by its name where the shell finds it, else (in an environment that is not activated) by its path."""
    own = Path(sys.executable).with_name("hone")
    if which("hone") or not own.is_file():
        return "hone"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _lines(out: Console, text: str, indent: int) -> list[str]:
    clean = tame(text)
    if not out.is_terminal:
        return clean.splitlines()
    return [line.plain.rstrip() for line in Text(clean).wrap(out, max(20, out.width - indent))]
