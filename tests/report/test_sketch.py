"""Curves as text fit a narrow terminal and show their ends."""

from __future__ import annotations

from hone.report.sketch import sketch


def test_it_fits_and_shows_range_steps_mark_and_names() -> None:
    curves = [("training loss", [(float(x), 3.0 - x / 50) for x in range(101)]), ("held-out loss", [(0.0, 3.0), (100.0, 1.5)])]
    lines = sketch(curves, mark=(50.0, "best"), width=56)
    assert all(len(line) <= 56 for line in lines) and len(lines) == 10
    assert lines[0].strip().startswith("3 |") and lines[6].strip().startswith("1 |")
    assert sum(":" in line for line in lines[:7]) >= 5 and "step 100" in lines[8]
    assert lines[-1].split() == "o training loss * held-out loss : best".split()


def test_one_point_and_none() -> None:
    assert sketch([("loss", [])]) == []
    assert any("o" in line for line in sketch([("loss", [(3.0, 1.0)])]))
