"""Intervals hold what they promise: on known formulas, and by covering the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from hone.eval.intervals import Z, bootstrap, paired, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (1, 40), (37, 80), (5, 6)])
def test_wilson_ends_solve_the_score_equation(k: int, n: int) -> None:
    found = wilson(k, n)
    assert found.value == k / n
    assert 0 <= found.low <= found.value <= found.high <= 1
    for end in (found.low, found.high):
        if 0 < end < 1:
            assert abs(k / n - end) == pytest.approx(Z * (end * (1 - end) / n) ** 0.5)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_wilson_covers_the_truth_nineteen_times_in_twenty(share: float) -> None:
    n, rng = 60, np.random.default_rng(0)
    ends = [wilson(k, n) for k in range(n + 1)]
    covered = np.mean([ends[k].low <= share <= ends[k].high for k in rng.binomial(n, share, 4000)])
    assert covered > 0.92


def test_bootstrap_of_a_mean_is_about_two_standard_errors() -> None:
    rows = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = bootstrap(lambda drawn: float(drawn.mean()), rows)
    error = rows.std() / 20
    assert found.value == rows.mean()
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.15)
    assert found.value - found.low == pytest.approx(1.96 * error, rel=0.15)


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = np.arange(30.0)
    assert bootstrap(np.median, rows, seed=3) == bootstrap(np.median, rows, seed=3)
    assert bootstrap(np.mean, rows, seed=3) != bootstrap(np.mean, rows, seed=4)


def test_pairs_see_a_small_change_that_separate_intervals_cannot() -> None:
    rng = np.random.default_rng(2)
    before = rng.normal(0, 5, 200)
    after = before + 0.3 + rng.normal(0, 0.1, 200)
    difference = paired(lambda rows: float(rows.mean()), before, after)
    assert 0 < difference.low < 0.3 < difference.high < 0.4
    one, other = (bootstrap(lambda rows: float(rows.mean()), side) for side in (before, after))
    assert one.high > other.low
