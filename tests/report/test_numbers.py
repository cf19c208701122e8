from __future__ import annotations

import math

import pytest

from hone.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0002, "2e-4"), (0.00015, "1.5e-4"), (1.2345, "1.234"), (1234, "1,234"), (1234567, "1.23M"), (-0.5, "-0.5"), (7e9, "7G")],
)
def test_short(value: float, text: str) -> None:
    assert numbers.short(value) == text


@pytest.mark.parametrize(("value", "text"), [(940, "940"), (5603, "5.6k"), (56030, "56k"), (1.25e6, "1.2M")])
def test_brisk(value: float, text: str) -> None:
    assert numbers.brisk(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (92, "1 min 32 s"), (7500, "2 h 05 min"), (273600, "3 d 4 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert numbers.duration(seconds).replace(numbers.NO_BREAK, " ") == text


def test_clock() -> None:
    assert [numbers.clock(s) for s in (-1, 92, 7507)] == ["0:00", "1:32", "2:05:07"]


def test_finite_refuses_what_cannot_be_drawn() -> None:
    assert [numbers.finite(v) for v in (1, 2.5, -3)] == [1.0, 2.5, -3.0]
    assert [numbers.finite(v) for v in (True, None, "3", math.nan, -math.inf, 10**400, 1e300)] == [None] * 7


def test_average_starts_at_the_first_value_and_passes_over_nan() -> None:
    average = numbers.Average(0.9)
    assert not average.known and math.isnan(average.value)
    assert average.add(4.0) == pytest.approx(4.0)
    assert average.add(math.nan) == pytest.approx(4.0)
    assert 4.0 < average.add(5.0) < 5.0


def test_smooth_of_a_constant_is_that_constant() -> None:
    assert numbers.smooth([3.0] * 50) == pytest.approx([3.0] * 50)
    assert numbers.smooth([]) == []
