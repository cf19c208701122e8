"""Small charts as inline SVG: no script, no library; colours and the hover read-out come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from zlib import crc32

from markupsafe import Markup

from hone.report.numbers import short

Point = tuple[float, float]
Mark = tuple[float, str]
Format = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One curve. `look` is its CSS class: `faint`, `train`, `held` or `line`. A faint one stays out of the read-out."""

    name: str
    points: Sequence[Point]
    look: str = "line"


@dataclass(frozen=True)
class Frame:
    """The plotting area in pixels, and the data ranges that it shows."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]
    left: int = 46
    right: int = 10
    top: int = 26
    bottom: int = 24

    def px(self, x: float) -> float:
        low, high = self.x
        return self.left + (x - low) / (high - low) * (self.width - self.left - self.right)

    def py(self, y: float) -> float:
        low, high = self.y
        return self.height - self.bottom - (y - low) / (high - low) * (self.height - self.top - self.bottom)


def line_chart(
    series: Sequence[Series], *, label: str, width: int = 940, height: int = 300, form: Format = short, marks: Sequence[Mark] = ()
) -> Markup:
    """Curves over steps, with axes, legend and a read-out under the pointer. `marks` are (step, what happened there)."""
    drawn = [Series(s.name, thin(s.points, width // 2), s.look) for s in series if s.points]
    assert drawn, "a chart needs at least one point"
    frame = Frame(width, height, x=_x_range(drawn), y=_y_range(drawn))
    clip = f"clip-{crc32(f'{label} {width}'.encode()):x}"
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">',
        f'<clipPath id="{clip}"><rect x="{frame.left}" y="{frame.top - 3}" width="{width - frame.left - frame.right}"'
        f' height="{height - frame.top - frame.bottom + 6}"/></clipPath>',
        *_axes(frame),
        *_marks(frame, sorted(mark for mark in marks if frame.x[0] <= mark[0] <= frame.x[1])),
        f'<g clip-path="url(#{clip})">',
        *(_curve(frame, s) for s in drawn),
        "</g>",
        *_legend(frame, drawn),
        *_columns(frame, [s for s in drawn if s.look != "faint"], form),
        "</svg>",
    ]
    return Markup("".join(parts))


def interval_bars(bars: Sequence[tuple[str, float, float, float]], *, top: float, label: str) -> Markup:
    """Horizontal bars with a whisker for the interval. Each bar is (look, value, low, high); `top` is the scale's right end."""
    height = 14 * len(bars) + 2
    parts = [f'<svg class="bars" height="{height}" role="img" aria-label="{escape(label)}">']
    for i, (look, value, low, high) in enumerate(bars):
        y = 14 * i + 1
        at, start, end = (f"{min(1.0, max(0.0, v / top)) * 99.4 + 0.3:.2f}%" for v in (value, low, high))
        parts.append(f'<rect class="rail" x="0" y="{y}" width="100%" height="12" rx="2"/>')
        parts.append(f'<rect class="{look}" x="0" y="{y}" width="{at}" height="12" rx="2"/>')
        if high > low:
            parts.append(f'<line class="whisker" x1="{start}" x2="{end}" y1="{y + 6}" y2="{y + 6}"/>')
            parts += [f'<line class="whisker" x1="{x}" x2="{x}" y1="{y + 3}" y2="{y + 9}"/>' for x in (start, end)]
    return Markup("".join([*parts, "</svg>"]))


def forest(value: float, low: float, high: float, *, reach: float, look: str, label: str) -> Markup:
    """One difference with its interval, on a scale from -reach to +reach with a line at zero."""
    at, start, end = (f"{50 + 48 * v / reach:.2f}%" for v in (value, low, high))
    parts = [f'<svg class="forest" height="22" role="img" aria-label="{escape(label)}">']
    parts.append('<line class="grid" x1="2%" x2="98%" y1="11" y2="11"/><line class="zero" x1="50%" x2="50%" y1="1" y2="21"/>')
    parts.append(f'<line class="{look} reach" x1="{start}" x2="{end}" y1="11" y2="11"/><circle class="{look}" cx="{at}" cy="11" r="5"/>')
    return Markup("".join([*parts, "</svg>"]))


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """At most about `limit` points, keeping the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= limit:
        return list(points)
    stretch = math.ceil(len(points) / (limit / 2))
    kept: list[Point] = [points[0]]
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    kept.append(points[-1])
    return list(dict.fromkeys(kept))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside the range, about so many."""
    rough = (high - low) / max(1, about)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _x_range(series: Sequence[Series]) -> tuple[float, float]:
    xs = [x for s in series for x, _ in s.points]
    low, high = min(xs), max(xs)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _y_range(series: Sequence[Series]) -> tuple[float, float]:
    """Room for all main curves; a faint one gets room for its middle 98 %, the rest of it is cut at the frame."""
    ys: list[float] = []
    for s in series:
        values = sorted(y for _, y in s.points)
        cut = len(values) // 100 if s.look == "faint" else 0
        ys += values[cut : len(values) - cut]
    low, high = min(ys), max(ys)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    bottom = 0.0 if low >= 0 and low < (high - low) * 0.6 else low - room
    return bottom, high + room


def _axes(frame: Frame) -> list[str]:
    across = ticks(*frame.x, about=max(3, frame.width // 130))
    floor, edge = frame.height - frame.bottom, frame.width - frame.right
    parts = []
    for y in ticks(*frame.y, about=max(3, frame.height // 56)):
        at = frame.py(y)
        parts.append(f'<line class="grid" x1="{frame.left}" x2="{edge}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{frame.left - 8}" y="{at + 4:.1f}" text-anchor="end">{short(y)}</text>')
    whole_steps = [x for x in across if x == round(x)]
    for x in whole_steps:
        anchor = "end" if frame.px(x) > edge - 14 else "middle"
        parts.append(f'<text x="{frame.px(x):.1f}" y="{floor + 17}" text-anchor="{anchor}">{x:,.0f}</text>')
    parts.append(f'<text x="{frame.left - 8}" y="{floor + 17}" text-anchor="end">step</text>')
    parts.append(f'<line class="axis" x1="{frame.left}" x2="{edge}" y1="{floor}" y2="{floor}"/>')
    return parts


def _curve(frame: Frame, series: Series) -> str:
    at = [(frame.px(x), frame.py(y)) for x, y in series.points]
    path = f'<polyline class="{series.look}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in at)}"/>'
    if series.look == "held" or len(at) == 1:
        path += "".join(f'<circle class="{series.look}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in at[:60])
    return path


def _marks(frame: Frame, marks: Sequence[Mark]) -> list[str]:
    """Dashed lines where something happened; words only where there is room for them."""
    parts, free = [], 0.0
    for x, text in marks:
        at = frame.px(x)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{frame.top}" y2="{frame.height - frame.bottom}"/>')
        if at >= free:
            parts.append(f'<text class="word" x="{at + 4:.1f}" y="{frame.top + 9}">{escape(text)}</text>')
            free = at + 10 + 6.2 * len(text)
    return parts


def _legend(frame: Frame, series: Sequence[Series]) -> list[str]:
    if len(series) == 1:
        return []
    parts, x = ['<g class="keys">'], float(frame.left)
    for s in series:
        parts.append(f'<line class="{s.look}" x1="{x:.0f}" x2="{x + 16:.0f}" y1="10" y2="10"/>')
        parts.append(f'<text class="key" x="{x + 22:.0f}" y="14">{escape(s.name)}</text>')
        x += 40 + 6.2 * len(s.name)
    return [*parts, "</g>"]


def _columns(frame: Frame, series: Sequence[Series], form: Format) -> list[str]:
    """Invisible columns that show a cross-hair and the values at their step while the pointer is on them."""
    slots = frame.width // 9
    low, high = frame.x
    leader = max(series, key=lambda s: len(s.points)).points
    chosen = sorted({round((x - low) / (high - low) * slots): x for x, _ in leader}.values())
    edges = [float(frame.left), *((frame.px(a) + frame.px(b)) / 2 for a, b in pairwise(chosen)), float(frame.width - frame.right)]
    return [_column(frame, x, span, series, form) for x, span in zip(chosen, pairwise(edges), strict=True)]


def _told(series: Series, point: Point, x: float, form: Format, *, alone: bool) -> str:
    """A curve's part of the read-out; a value that belongs to another step says to which."""
    value = form(point[1]) if alone else f"{series.name} {form(point[1])}"
    return value if point[0] == x else f"{value} (step {point[0]:,.0f})"


def _column(frame: Frame, x: float, span: tuple[float, float], series: Sequence[Series], form: Format) -> str:
    near = [(s, min(s.points, key=lambda p: abs(p[0] - x))) for s in series]
    text = " · ".join([f"step {x:,.0f}", *(_told(s, point, x, form, alone=len(series) == 1) for s, point in near)])
    dots = "".join(f'<circle class="{s.look}" cx="{frame.px(px):.1f}" cy="{frame.py(py):.1f}" r="3.5"/>' for s, (px, py) in near)
    at, floor = f"{frame.px(x):.1f}", frame.height - frame.bottom
    return (
        f'<g class="hit"><rect x="{span[0]:.1f}" y="{frame.top}" width="{span[1] - span[0]:.1f}" height="{floor - frame.top}"/>'
        f'<g><line class="cross" x1="{at}" x2="{at}" y1="{frame.top}" y2="{floor}"/>{dots}'
        f'<text class="tip" x="{frame.width - frame.right}" y="14" text-anchor="end">{escape(text)}</text></g></g>'
    )
