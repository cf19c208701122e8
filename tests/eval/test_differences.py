"""Intervals of differences cover what they promise, pairs are sharper than strangers, and the power is what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hone.core.estimates import Difference
from hone.eval.differences import difference, estimate, side, student, value_of


@pytest.mark.parametrize(
    ("p", "free", "expected"), [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 9, 2.262), (0.995, 4, 4.604), (0.975, 1e5, 1.960)]
)
def test_quantiles_of_student_are_those_of_the_tables(p: float, free: float, expected: float) -> None:
    assert student(p, free) == pytest.approx(expected, abs=2e-3)


def _made(rng: np.random.Generator, rows: int, gap: float, seeds: int = 1, wobble: float = 0.0) -> Difference:
    """Two models whose losses go up and down together over rows of different length."""
    units, common = rng.integers(3, 30, rows).astype(float), rng.normal(2.0, 0.8, rows)
    models = [
        side(*[(units * (common + shift + wobble * rng.normal() + rng.normal(0, 0.2, rows)), units) for _ in range(seeds)])
        for shift in (0.0, gap)
    ]
    return difference(*models)


def test_a_true_difference_lies_in_the_interval_as_often_as_promised() -> None:
    rng = np.random.default_rng(0)
    for seeds, wobble in ((1, 0.0), (3, 0.1)):
        found = [_made(rng, 60, 0.05, seeds, wobble) for _ in range(250)]
        covered = sum(one.low <= 0.05 <= one.high for one in found) / len(found)
        assert 0.92 <= covered <= 0.985, (seeds, covered)


def test_nothing_is_found_where_nothing_is_and_the_smallest_difference_is_found_four_times_of_five() -> None:
    rng = np.random.default_rng(1)
    false = sum(_made(rng, 60, 0.0).apart for _ in range(250)) / 250
    assert false < 0.09
    smallest = float(np.mean([_made(rng, 60, 0.0).smallest for _ in range(40)]))
    seen = sum(_made(rng, 60, smallest).apart for _ in range(250)) / 250
    assert 0.74 <= seen <= 0.87, seen


def test_pairs_show_what_strangers_cannot() -> None:
    rng = np.random.default_rng(2)
    units, common = np.ones(50), rng.normal(2.0, 1.0, 50)
    first, second = side((common, units)), side((common + 0.1 + rng.normal(0, 0.05, 50), units))
    together, apart = difference(first, second), difference(first, second, paired=False)
    assert together.apart and not apart.apart
    assert together.value == pytest.approx(apart.value) and not apart.paired
    assert estimate(first).low < value_of(first) < estimate(first).high


def test_a_handful_of_right_answers_more_proves_nothing() -> None:
    """Four of four pairs that differ is p = 0.125 by the sign test, six of six is 0.03."""
    for more, told in ((0, False), (4, False), (6, True)):
        right = np.zeros(50)
        right[:more] = 1.0
        found = difference(side((np.zeros(50), np.ones(50))), side((right, np.ones(50))))
        assert found.apart is told and found.value == pytest.approx(more / 50)
        assert found.smallest > 2 / 50 and math.isfinite(found.smallest)
