"""Numbers for people: thousands, shares, bytes and durations as short text, and the one moving average that all views share."""

from __future__ import annotations

import math
from collections.abc import Iterable

LARGEST = 1e100
NO_BREAK = "\N{NO-BREAK SPACE}"


def finite(value: object) -> float | None:
    """The value as a float if it is a number that can be drawn, else None (booleans, NaN, text and absurdly large numbers are not)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -LARGEST < value < LARGEST else None


def short(value: float) -> str:
    """Three or four significant digits: 0.0002 -> 2e-4, 1.2345 -> 1.234, 1234567 -> 1.23M."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3:
        digits, power = f"{value:.2e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= limit:
            return f"{value / limit:.3g}{unit}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def brisk(value: float) -> str:
    """A speed in at most five characters: 940, 5.6k, 56k, 1.2M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.1f}{unit}" if value < 10 * limit else f"{value / limit:.0f}{unit}"
    return f"{value:.0f}"


def loss_text(value: float) -> str:
    """A loss with the digits that can matter: three after the point below 100."""
    return f"{value:.3f}" if abs(value) < 100 else short(value)


def percent(share: float) -> str:
    """0.9134 -> 91.3 %."""
    return f"{share * 100:.1f}{NO_BREAK}%"


def whole(value: float) -> str:
    """Thousands with commas."""
    return f"{value:,.0f}"


def size(n: float) -> str:
    """Bytes in decimal units."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n >= limit:
            return f"{n / limit:.3g}{NO_BREAK}{unit}"
    return f"{n:.0f}{NO_BREAK}B"


def duration(seconds: float) -> str:
    """The two largest units: 42 s, 1 min 32 s, 2 h 05 min, 3 d 4 h."""
    left = max(0, round(seconds))
    if left < 60:
        return f"{left}{NO_BREAK}s"
    if left < 3600:
        return f"{left // 60}{NO_BREAK}min {left % 60:02d}{NO_BREAK}s"
    if left < 86400:
        return f"{left // 3600}{NO_BREAK}h {left % 3600 // 60:02d}{NO_BREAK}min"
    return f"{left // 86400}{NO_BREAK}d {left % 86400 // 3600}{NO_BREAK}h"


def clock(seconds: float) -> str:
    """A fixed-width countdown: 1:32 or 2:05:07."""
    left = max(0, round(seconds))
    hours, minutes = left // 3600, left % 3600 // 60
    return f"{hours}:{minutes:02d}:{left % 60:02d}" if hours else f"{minutes}:{left % 60:02d}"


def count(n: int, one: str, many: str = "") -> str:
    """1 row, 2 rows."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


class Average:
    """Exponential moving average without the pull towards zero at the start."""

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self._sum = self._weight = 0.0

    def add(self, value: float) -> float:
        """Take one value in and return the average so far. A value that is not finite is passed over."""
        if math.isfinite(value):
            self._sum = self.decay * self._sum + (1 - self.decay) * value
            self._weight = self.decay * self._weight + (1 - self.decay)
        return self.value

    @property
    def known(self) -> bool:
        """Whether any value has been taken in."""
        return self._weight > 0

    @property
    def value(self) -> float:
        return self._sum / self._weight if self.known else math.nan


def smooth(values: Iterable[float]) -> list[float]:
    """The moving average of a whole curve; its window is about a twentieth of it."""
    found = list(values)
    average = Average(1 - 2 / (max(4, len(found) / 20) + 1))
    return [average.add(value) for value in found]
