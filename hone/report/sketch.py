"""Curves as a few lines of text, for a terminal of 60 columns or more."""

from __future__ import annotations

from collections.abc import Sequence

from hone.report.numbers import short
from hone.report.svg import Mark, Point, thin

SIGNS = "o*+x"
"""One sign for each curve, the later over the earlier; a mark is a column of colons."""
LABEL = 8


def sketch(curves: Sequence[tuple[str, Sequence[Point]]], *, mark: Mark | None = None, width: int = 58, height: int = 7) -> list[str]:
    """Curves of (step, value) over each other, with the range on the left, the steps below, and what each sign is."""
    drawn = [(name, thin(points, 4 * width)) for name, points in curves if points][: len(SIGNS)]
    if not drawn:
        return []
    columns = max(8, width - LABEL - 2)
    xs, ys = [x for _, points in drawn for x, _ in points], [y for _, points in drawn for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    grid = [[" "] * columns for _ in range(height)]
    if mark is not None and left <= mark[0] <= right:
        at = _place(mark[0], left, right, columns)
        for line in grid:
            line[at] = ":"
    for sign, (_, points) in zip(SIGNS, drawn, strict=False):
        for x, y in points:
            grid[height - 1 - _place(y, low, high, height)][_place(x, left, right, columns)] = sign
    labels = {0: short(high), height - 1: short(low)}
    lines = [f"{labels.get(i, ''):>{LABEL}} |{''.join(line)}".rstrip() for i, line in enumerate(grid)]
    ends = f"{left:,.0f}", f"{right:,.0f}"
    lines.append(" " * LABEL + " +" + "-" * columns)
    lines.append(" " * (LABEL + 2) + ends[0] + f"step {ends[1]}".rjust(columns - len(ends[0])))
    keys = [f"{sign} {name}" for sign, (name, _) in zip(SIGNS, drawn, strict=False)]
    return [*lines, " " * (LABEL + 2) + "  ".join([*keys, *([f": {mark[1]}"] if mark is not None else [])])]


def _place(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1)) if high > low else 0
