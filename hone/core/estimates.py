"""Measured numbers that know how sure they are: one with its interval, and how far two of them lie apart."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return self._asdict()


class Difference(NamedTuple):
    """How far a second model is from a first, and how sure that is."""

    value: float
    low: float
    high: float
    smallest: float
    """A true difference of this size would be seen by this test four times out of five. Smaller ones may hide."""
    n: int
    paired: bool

    @property
    def apart(self) -> bool:
        """Whether it is no accident of the rows (and seeds)."""
        return self.low > 0 or self.high < 0
