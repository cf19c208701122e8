from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from hone.report.svg import Series, interval_bars, line_chart, thin, ticks


def numbers_of(svg: str, attribute: str) -> list[float]:
    return [float(value) for value in re.findall(rf'\b{attribute}="(-?[\d.]+)"', svg)]


def test_thinning_keeps_both_ends_the_spike_and_the_dip() -> None:
    points = [(float(i), 1.0) for i in range(10_000)]
    points[3_333], points[7_777] = (3_333.0, -5.0), (7_777.0, 99.0)
    kept = thin(points, 400)
    assert len(kept) <= 402 and kept[0] == points[0] and kept[-1] == points[-1] and {(3_333.0, -5.0), (7_777.0, 99.0)} < set(kept)
    assert kept == sorted(kept)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.31, 0.34), (1, 2), (-4, 90), (0, 2e-4), (3e8, 9e8)])
def test_ticks_are_round_even_and_inside(low: float, high: float) -> None:
    found = ticks(low, high, about=5)
    gaps = [b - a for a, b in pairwise(found)]
    assert 3 <= len(found) <= 11 and gaps == pytest.approx([gaps[0]] * len(gaps))
    assert f"{gaps[0]:.6e}".split("e")[0] in ("1.000000", "2.000000", "5.000000")
    assert low - 1e-9 * abs(low) <= found[0] and found[-1] <= high * (1 + 1e-9)


@pytest.mark.parametrize(
    "points", [[(1.0, 2.0)], [(1.0, 2.0), (2.0, 2.0)], [(5.0, -1.0), (9.0, 3.0)], [(float(i), math.sin(i)) for i in range(3_000)]]
)
def test_a_chart_is_well_formed_and_stays_in_its_frame(points: list[tuple[float, float]]) -> None:
    svg = line_chart([Series("train", points, "train")], label="loss", width=340, height=200)
    ElementTree.fromstring(svg)
    assert "nan" not in svg
    for x in numbers_of(svg, "x1") + numbers_of(svg, "cx"):
        assert 0 <= x <= 340
    for y in numbers_of(svg, "y1") + numbers_of(svg, "cy"):
        assert 0 <= y <= 200


def test_the_read_out_tells_every_curve_at_the_step_but_not_the_faint_one() -> None:
    raw, train, held = [(1, 5.0), (2, 4.0)], [(1, 5.0), (2, 4.5)], [(2, 4.2)]
    curves = [Series("each step", raw, "faint"), Series("train", train, "train"), Series("held out", held, "held")]
    svg = line_chart(curves, label="loss", marks=[(2, "resumed"), (99, "never")])
    assert "step 2 · train 4.5 · held out 4.2<" in svg and "step 1 · train 5 · held out 4.2 (step 2)<" in svg
    assert "step 1 · 5<" in line_chart(curves[1:2], label="one")
    assert ">resumed<" in svg and "never" not in svg


def test_names_cannot_break_out_of_a_chart() -> None:
    evil = '"/></svg><script>alert(1)</script>'
    points = [(1.0, 1.0), (2.0, 3.0)]
    for svg in (
        line_chart([Series(evil, points), Series("b", points)], label=evil, marks=[(1, evil)]),
        interval_bars([("before", 0.5, 0.4, 0.6)], top=1, label=evil),
    ):
        assert "<script" not in svg
        ElementTree.fromstring(svg)


def test_bars_share_a_scale_and_draw_their_interval() -> None:
    svg = interval_bars([("before", 0.1, 0.0, 0.2), ("after", 0.9, 0.8, 1.0)], top=1.0, label="facts")
    widths = [float(w) for w in re.findall(r'class="(?:before|after)"[^>]*width="([\d.]+)%"', svg)]
    assert widths[0] < 11 and 89 < widths[1] < 91
    assert svg.count('class="whisker"') == 6
    assert interval_bars([("after", 0.5, 0.5, 0.5)], top=1.0, label="x").count("whisker") == 0
