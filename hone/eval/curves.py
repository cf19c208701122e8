"""Where a loss is going: its expected value at the end of a run, from the beginning of its curve, with an interval.

What is still to come is a quantile regression on three quantities: the held-out loss falls on as it last fell with the logarithm of
the step, by a share of what it has fallen so far, and by a share of what is left. Their weights were found on stored runs of many
methods and rates, some of them ill, and tested on others (`bench/forecast.py`, docs/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hone.core.estimates import Estimate

Point = tuple[float, float]
EARLIEST = 0.15
"""Share of a run that must be behind it."""
LEVEL = 0.8
REMAINING = {0.1: (0.1422, -0.1041, 0.0), 0.5: (0.1973, 0.0217, 0.0239), 0.9: (0.0864, 0.005, 0.4312)}
"""Quantile -> weights of the three quantities in what the loss will still fall by."""
POWERS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
BEND = 0.03
"""How far a loss may lie from a power law of the amount of data, as a share of what the losses span."""


def expected(held_out: Sequence[Point], training: Sequence[Point], total: float) -> Estimate | None:
    """The held-out loss at step `total` with its 80 % interval, from (step, loss) so far.

    None while less than 15 % of the run is behind it, or where fewer than two held-out losses are known.
    """
    found = features(held_out, training, total)
    if found is None:
        return None
    now = held_out[-1][1]
    least, middle, most = (sum(w * x for w, x in zip(weights, found, strict=True)) for weights in REMAINING.values())
    ends = sorted((now - most, now - middle, now - least))
    return Estimate(ends[1], ends[0], ends[2])


def features(held_out: Sequence[Point], training: Sequence[Point], total: float) -> tuple[float, float, float] | None:
    """What the regression looks at; None where it is too early, or the loss is none (a reward with its sign turned). 0 at the end."""
    if len(held_out) < 2 or held_out[-1][0] < EARLIEST * total or held_out[-1][1] <= 0:
        return None
    step, now = held_out[-1]
    share, drop = min(1.0, step / total), abs(held_out[0][1] - now)
    if len(held_out) > 2 and held_out[-2][0] > 0:
        slope = (held_out[-2][1] - now) / math.log(step / held_out[-2][0])
    else:
        slope = _slope([point for point in training if step / 2 <= point[0] <= step])
    return min(max(slope, 0.0), drop) * math.log(1 / share), drop * (1 - share), now * (1 - share)


def _slope(points: Sequence[Point]) -> float:
    """How fast a curve falls with the logarithm of the step."""
    if len(points) < 3 or points[0][0] <= 0:
        return 0.0
    x, y = np.log([step for step, _ in points]), np.array([loss for _, loss in points])
    return float(-np.polyfit(x, y, 1)[0])


def more_data(sizes: Sequence[Point], rows: float) -> Estimate | None:
    """The loss after training on so many rows, from (rows, loss) of runs that differ in their amount of data only, 80 %.

    Power laws with a floor, L = E + A rows^-p, are fitted for a range of p and weighted by how well they fit. None for fewer than
    three different amounts: two points fit every power.
    """
    known = sorted(dict(sizes).items())
    if len(known) < 3:
        return None
    x, y = (np.array(column, dtype=np.float64) for column in zip(*known, strict=True))
    error = max(1e-9, BEND * float(np.ptp(y)))
    ends, misfits = [], []
    for power in POWERS:
        design = np.stack([np.ones_like(x), (x / x[-1]) ** -power], 1)
        found, *_ = np.linalg.lstsq(design, y, rcond=None)
        misfits.append(float((((design @ found - y) / error) ** 2).sum()))
        ends.append(float(found[0] + found[1] * (rows / x[-1]) ** -power))
    weights = np.exp(-0.5 * np.minimum(np.array(misfits) - min(misfits), 700))
    weights /= weights.sum()
    middle = float(weights @ np.array(ends))
    spread = math.sqrt(float(weights @ (np.array(ends) - middle) ** 2) + error**2)
    return Estimate(middle, middle - 1.2816 * spread, middle + 1.2816 * spread)
