"""A picture of all layers of a model, blocks down and kinds of layers across, as inline SVG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

WIDE, HIGH, LEFT, TOP = 92, 20, 52, 24
FAINTEST = 0.06


class Cell(NamedTuple):
    """One layer: how bad it is, what is said of it under the pointer, and its number if it was chosen."""

    path: str
    value: float
    title: str
    chosen: int | None = None


def place_of(path: str) -> tuple[str, str]:
    """(block, kind) of a layer: model.layers.3.mlp.up_proj is ("3", "up_proj")."""
    found = re.search(r"\.(\d+)\.", path)
    return (found[1] if found else ""), path.rpartition(".")[2]


def heat_map(cells: Sequence[Cell]) -> Markup:
    """Darker is a larger value, on a scale from the smallest to the largest; chosen cells have a ring with their number."""
    rows = sorted({place_of(cell.path)[0] for cell in cells}, key=lambda block: (len(block), block))
    columns = list(dict.fromkeys(place_of(cell.path)[1] for cell in cells))
    width, height = LEFT + WIDE * len(columns), TOP + HIGH * len(rows)
    low, high = min(cell.value for cell in cells), max(cell.value for cell in cells)
    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="error of each layer">']
    parts += [f'<text x="{LEFT + WIDE * (i + 0.5)}" y="{TOP - 8}" text-anchor="middle">{escape(n)}</text>' for i, n in enumerate(columns)]
    parts += [f'<text x="{LEFT - 8}" y="{TOP + HIGH * (i + 0.7)}" text-anchor="end">{escape(n)}</text>' for i, n in enumerate(rows)]
    for cell in cells:
        block, kind = place_of(cell.path)
        x, y = LEFT + WIDE * columns.index(kind), TOP + HIGH * rows.index(block)
        shade = FAINTEST + (1 - FAINTEST) * (cell.value - low) / max(high - low, 1e-12)
        parts.append(f'<g><title>{escape(cell.title)}</title><rect class="cell" x="{x + 1}" y="{y + 1}" width="{WIDE - 2}"')
        parts.append(f' height="{HIGH - 2}" rx="3" fill-opacity="{shade:.3f}"/>')
        if cell.chosen is not None:
            parts.append(f'<rect class="ring" x="{x + 2}" y="{y + 2}" width="{WIDE - 4}" height="{HIGH - 4}" rx="3"/>')
            parts.append(f'<text class="mark" x="{x + WIDE / 2}" y="{y + HIGH * 0.7}" text-anchor="middle">{cell.chosen}</text>')
        parts.append("</g>")
    return Markup("".join([*parts, "</svg>"]))
