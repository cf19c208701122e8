"""Forecasts are given only when they can be, narrow towards the end, and hold what comes as often as promised."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hone.eval.curves import expected, features, more_data

HELD_OUT = [(float(step), 0.8 + 2.0 / (1 + step / 6)) for step in range(0, 121, 10)]
TRAINING = [(float(step), 0.9 + 2.0 / (1 + step / 6)) for step in range(1, 121)]


def test_too_early_nothing_is_said() -> None:
    assert expected(HELD_OUT[:2], TRAINING[:10], 120) is None, "8 % are done"
    assert expected(HELD_OUT[:1], TRAINING, 120) is None
    assert expected([(0, -0.2), (60, -0.4)], [], 120) is None, "a reward is no loss"


def test_the_interval_holds_the_end_and_narrows_towards_it() -> None:
    widths = []
    for known in range(3, len(HELD_OUT)):
        found = expected(HELD_OUT[:known], TRAINING[: 10 * (known - 1)], 120)
        assert found is not None and found.low <= found.value <= found.high
        assert found.low <= HELD_OUT[-1][1] <= found.high
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    end = expected(HELD_OUT, TRAINING, 120)
    assert end is not None and end.low == pytest.approx(end.high) == pytest.approx(HELD_OUT[-1][1])


def test_with_one_evaluation_the_training_loss_tells_the_slope() -> None:
    falling = features([(0, 3.0), (20, 2.0)], [(float(i), 3.0 - 0.5 * math.log(i)) for i in range(1, 21)], 100)
    flat = features([(0, 3.0), (20, 2.0)], [(float(i), 2.0) for i in range(1, 21)], 100)
    assert falling is not None and flat is not None
    assert falling[0] == pytest.approx(0.5 * math.log(5)) and flat[0] == pytest.approx(0.0, abs=1e-9)


def test_more_data_follows_the_power_law_that_three_amounts_show() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for power in (0.2, 0.4, 0.7):
        law = {rows: 0.7 + 4.0 * rows**-power for rows in (250, 500, 1000, 2000)}
        for _ in range(40):
            known = [(rows, law[rows] + rng.normal(0, 0.01 * (law[250] - law[1000]))) for rows in (250, 500, 1000)]
            found = more_data(known, 2000)
            assert found is not None
            held += found.low <= law[2000] <= found.high
    assert held / 120 >= 0.75
    assert more_data([(250, 2.0), (500, 1.8)], 1000) is None
