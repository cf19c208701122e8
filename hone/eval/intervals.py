"""How sure a measured number is: intervals for shares by Wilson's formula, for everything else by resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hone.core.estimates import Estimate

Z = 1.959963984540054
"""Standard normal quantile of a two-sided 95 % interval."""
RESAMPLES = 1000

Statistic = Callable[[NDArray[Any]], float]
"""From the rows of an array, one for each question, to a number."""


def wilson(successes: float, n: int) -> Estimate:
    """Interval of a share of n independent trials (Wilson 1927): sound for few trials and for shares near 0 and 1."""
    assert n > 0, "a share of nothing"
    share, spread = successes / n, Z * Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * (share * (1 - share) / n + spread / (4 * n)) ** 0.5
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def bootstrap(statistic: Statistic, rows: NDArray[Any], *, seed: int = 0) -> Estimate:
    """Percentile interval of a statistic when the rows are drawn again with replacement (Efron 1979)."""
    assert len(rows), "a statistic of nothing"
    rng = np.random.default_rng(seed)
    drawn = [statistic(rows[rng.integers(0, len(rows), len(rows))]) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(statistic(rows), float(low), float(high))


def paired(statistic: Statistic, before: NDArray[Any], after: NDArray[Any], *, seed: int = 0) -> Estimate:
    """The difference after - before on the same questions, drawn again together: much narrower than two separate intervals."""
    assert len(before) == len(after), "pairs need both sides"
    both = np.stack([before, after], 1)
    return bootstrap(lambda rows: statistic(rows[:, 1]) - statistic(rows[:, 0]), both, seed=seed)
