"""Successive halving (arXiv 1502.07943): all arms a little, the better half twice as far, until one is left."""

from __future__ import annotations

import math


def rungs(arms: int) -> list[tuple[float, int]]:
    """(share of the steps, how many arms go on) at each stop; the last one left is trained to its end.

    Each stage costs about as much as the one before. The learning rate follows the schedule of the whole run, so an arm that goes on
    is the run that it would have been without any stop.
    """
    if arms < 2:
        return []
    stops = math.ceil(math.log2(arms))
    return [(2.0 ** (i - stops), max(1, math.ceil(arms / 2 ** (i + 1)))) for i in range(stops)]


def cost(arms: int) -> float:
    """What it comes to, in whole runs."""
    spent, before, alive = 0.0, 0.0, arms
    for share, keep in rungs(arms):
        spent += alive * (share - before)
        before, alive = share, keep
    return spent + alive * (1 - before)
