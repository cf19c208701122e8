"""`hone compare`: several runs side by side, in the terminal, as a page or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hone.report.comparison import Comparison, Measure

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*#@"
POINTS = 24


def command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs; all are compared with the first.")],
    html: Annotated[Path | None, typer.Option("--html", help="Also write one page with plots, into this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Settings that differ, curves, scores with the intervals of their differences, and cost. No model is loaded.

    Scores are compared row by row on the same held-out rows; runs that were measured on others are compared as strangers, with a warning.
    """
    from hone.cli.style import console, paragraph
    from hone.core.files import write_atomically
    from hone.recipe.comparing import compare
    from hone.report.comparison import render

    found = compare(runs)
    if html is not None:
        write_atomically(html, render(found))
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    out = console()
    show(found, out)
    if html is not None:
        paragraph(out, f"\nwritten: {html}", style="dim")


def show(found: Comparison, out: Console) -> None:
    """The whole comparison, at any width from 60 columns on."""
    from hone.cli.style import commands, paragraph
    from hone.report.terminal import tame

    commands(out, zip(found.letters, found.names, strict=True))
    for text in found.warnings:
        paragraph(out, f"note: {text}", style="yellow")
    _head(out, "settings that differ")
    if found.settings:
        _columns(out, found.letters, [(tame(key), [tame(value) for value in values]) for key, values in found.settings])
    else:
        paragraph(out, "none", indent=2)
    for one in found.measures:
        _measure(out, one, found.letters)
    for title, series in found.curves():
        _head(out, title.lower())
        ends = min(y for each in series for _, y in each.points), max(y for each in series for _, y in each.points)
        for each in series:
            line = sparkline([y for _, y in each.points], ends, plain=out.options.ascii_only)
            out.print(f"  {each.name}  {line}  {_number(each.points[0][1])} to {_number(each.points[-1][1])}", soft_wrap=True)
    _head(out, "cost")
    _columns(out, found.letters, found.costs())
    paragraph(out, f"\n{found.verdict}", style="bold")


def _head(out: Console, text: str) -> None:
    from hone.cli.style import paragraph

    paragraph(out, f"\n{text}", style="dim")


def _measure(out: Console, one: Measure, letters: str) -> None:
    from hone.cli.style import beside

    _head(out, f"{one.title}, {one.n} rows, {'less' if one.lower_is_better else 'more'} is better")
    for letter, span in zip(letters, one.estimates, strict=True):
        text = f"{one.text(span.value)} ({one.text(span.low)} to {one.text(span.high)})"
        found = one.differences.get(letter)
        if found is not None:
            how = "" if found.paired else ", unpaired"
            interval = f"{one.change(found.low)} to {one.change(found.high)}{how}"
            text += f"; {one.change(found.value)} from A ({interval}): {one.told(found)}"
            needed = one.rows_needed(found)
            text += f"; about {needed:,} rows would show this one" if needed else ""
        beside(out, letter, text, width=3, style="bold")


def _columns(out: Console, letters: str, rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
    table.add_column("", style="dim", overflow="fold")
    for letter in letters:
        table.add_column(Text(letter, style="bold"), overflow="fold", header_style="")
    for name, values in rows:
        table.add_row(f"  {name}", *(Text(value) for value in values))
    out.print(table)


def sparkline(values: Sequence[float], ends: tuple[float, float], *, plain: bool = False) -> str:
    """A curve in a few characters: the mean of each stretch as the height of a block, between two ends that several curves share."""
    blocks, count = PLAIN if plain else BLOCKS, min(POINTS, len(values))
    stretches = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(some) / len(some) for some in stretches]
    low, high = ends
    return "".join(blocks[round((mean - low) / ((high - low) or 1.0) * (len(blocks) - 1))] for mean in means)


def _number(value: float) -> str:
    from hone.report.numbers import loss_text

    return loss_text(value)
