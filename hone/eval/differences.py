"""Do two models really differ? Differences on the same rows with their intervals, and the smallest that these rows could show.

Shape legend: S seeds, N rows, 2: a sum and its units.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hone.core.estimates import Difference, Estimate
from hone.eval.intervals import wilson

LEVEL, POWER = 0.95, 0.8
Side = NDArray[np.float64]
"""What was measured of one model, (S, N, 2); the number itself is the sum over rows by the units over rows, the mean over seeds."""


def side(*seeds: tuple[NDArray[Any], NDArray[Any]]) -> Side:
    """From (sums, units) of each seed."""
    return np.stack([np.stack([np.asarray(each, np.float64) for each in pair], 1) for pair in seeds])


def value_of(one: Side) -> float:
    return float(_ratios(one).mean())


def estimate(one: Side, *, level: float = LEVEL) -> Estimate:
    """The number with its interval over rows and, with several seeds, over seeds; Wilson's for the shares of a single run."""
    if len(one) == 1 and level == LEVEL and _shares(one):
        return wilson(float(one[0, :, 0].sum()), one.shape[1])
    found = _judged(value_of(one), _influence(one), _ratios(one), level)
    return Estimate(found.value, found.low, found.high)


def difference(first: Side, second: Side, *, level: float = LEVEL, paired: bool = True) -> Difference:
    """second - first. `paired` says that their rows are the same, in the same order.

    Rows enter by their influence on the ratio (the delta method), seeds by the spread of their differences, and both together with
    the degrees of freedom of Welch and Satterthwaite. Shares of right answers of single runs take Agresti and Min's interval,
    which is sound for few pairs that differ.
    """
    value = value_of(second) - value_of(first)
    if not paired:
        parts = [_judged(0.0, _influence(one), _ratios(one), level) for one in (first, second)]
        half = math.hypot(*(part.high for part in parts))
        return Difference(
            value, value - half, value + half, math.hypot(*(part.smallest for part in parts)), min(first.shape[1], second.shape[1]), False
        )
    assert first.shape[1] == second.shape[1], "pairs need both sides"
    if len(first) == len(second) == 1 and _shares(first) and _shares(second):
        return _of_shares(first[0, :, 0], second[0, :, 0], level)
    seeds = _ratios(second) - _ratios(first) if len(first) == len(second) else np.concatenate([_ratios(second), -_ratios(first)])
    return _judged(value, _influence(second) - _influence(first), seeds, level)


def _ratios(one: Side) -> NDArray[np.float64]:
    found: NDArray[np.float64] = one[:, :, 0].sum(1) / np.maximum(one[:, :, 1].sum(1), 1e-12)
    return found


def _influence(one: Side) -> NDArray[np.float64]:
    """How much each row moves the ratio, the mean over seeds, (N,)."""
    units = np.maximum(one[:, :, 1].sum(1, keepdims=True), 1e-12)
    found: NDArray[np.float64] = ((one[:, :, 0] - _ratios(one)[:, None] * one[:, :, 1]) / units).mean(0)
    return found


def _judged(value: float, influence_N: NDArray[np.float64], seeds_S: NDArray[np.float64], level: float) -> Difference:
    n, seeds = len(influence_N), len(seeds_S)
    of_rows = n / max(1, n - 1) * float((influence_N**2).sum())
    of_seeds = float(seeds_S.var(ddof=1)) / seeds if seeds > 1 else 0.0
    error = math.sqrt(of_rows + of_seeds)
    free = error**4 / max(1e-300, of_rows**2 / max(1, n - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0))
    reach = student(1 - (1 - level) / 2, max(1.0, free))
    half = reach * error
    return Difference(value, value - half, value + half, (reach + NormalDist().inv_cdf(POWER)) * error, n, True)


def _shares(one: Side) -> bool:
    return bool(np.isin(one[:, :, 0], (0.0, 1.0)).all() and (one[:, :, 1] == 1.0).all())


def _of_shares(first_N: NDArray[np.float64], second_N: NDArray[np.float64], level: float) -> Difference:
    """Agresti and Min (2005): half a pair is added to each cell of the table of agreements."""
    n, won, lost = len(first_N), int((second_N > first_N).sum()), int((second_N < first_N).sum())
    middle = (won - lost) / (n + 2)
    error = math.sqrt(max(0.0, (won + lost + 1) - (won - lost) ** 2 / (n + 2))) / (n + 2)
    reach = NormalDist().inv_cdf(1 - (1 - level) / 2)
    half = reach * error
    smallest = (reach + NormalDist().inv_cdf(POWER)) * error
    return Difference((won - lost) / n, middle - half, middle + half, smallest, n, True)


def student(p: float, free: float) -> float:
    """Quantile of Student's t for p above 1/2 and any degrees of freedom: Simpson's rule on the density, then bisection."""
    if free > 1e4:
        return NormalDist().inv_cdf(p)
    scale = math.exp(math.lgamma((free + 1) / 2) - math.lgamma(free / 2)) / math.sqrt(free * math.pi)

    def below(x: float) -> float:
        points = np.tan(np.linspace(0.0, math.atan(x), 513))  # long tails: even steps of the angle
        density = scale * (1 + points**2 / free) ** (-(free + 1) / 2) * (1 + points**2)
        weights = np.ones(513)
        weights[1:-1:2], weights[2:-1:2] = 4, 2
        return 0.5 + float((weights * density).sum()) * math.atan(x) / 512 / 3

    low, high = 0.0, 1.0
    while below(high) < p:
        high *= 2
    for _ in range(60):
        low, high = ((low + high) / 2, high) if below((low + high) / 2) < p else (low, (low + high) / 2)
    return high
