"""Which layers of a quantised model are worth their bytes: greedy by true KL divergence per byte, within a budget or to a target."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hone.models.calibrate import LayerError

SHORTLIST = 32
"""Layers that are tried; the others have a smaller error of their output for their size than all of these."""


class Choice(NamedTuple):
    """One layer that is kept."""

    path: str
    kl: float
    """With it and all before it."""
    gain: float
    """What it took off."""
    extra: int
    """Bytes that it costs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop: bytes that may be spent, or the divergence that is wanted."""

    extra: int
    kl: float | None = None


class Trial(Protocol):
    """A model of which layers can be kept for a try, and for good."""

    def restore(self, path: str) -> None: ...
    def divergence_with(self, path: str) -> float: ...
    def divergence(self) -> float: ...


def shortlist(errors: Mapping[str, LayerError], most: int = SHORTLIST) -> list[str]:
    """The layers whose output suffers most, counted for the bytes that they cost."""
    return sorted(errors, key=lambda path: -errors[path].output / errors[path].extra)[:most]


def allot(trial: Trial, errors: Mapping[str, LayerError], limits: Limits, *, tell: Callable[[str], None]) -> list[Choice]:
    """The layers to keep, in the order in which they were chosen.

    A layer that helped less when fewer were kept rarely helps more later, so what was measured before stands as a bound,
    and only the best candidate is measured again (lazy greedy, Minoux 1978).
    """
    now, left = trial.divergence(), limits.extra
    queue = [(-float("inf"), -1, path) for path in shortlist(errors)]
    chosen: list[Choice] = []
    heapq.heapify(queue)
    while queue and (limits.kl is None or now > limits.kl):
        bound, measured, path = heapq.heappop(queue)
        cost = errors[path].extra
        if cost > left:
            continue
        if measured < len(chosen):
            gain = now - trial.divergence_with(path)
            heapq.heappush(queue, (-gain / cost, len(chosen), path))
            tell(f"{path}: {1e3 * gain:+.3f} millinats for {cost:,} bytes")
            continue
        if bound >= 0:
            break  # the best of them makes nothing better
        trial.restore(path)
        now, left = now + bound * cost, left - cost
        chosen.append(Choice(path, now, -bound * cost, cost))
        tell(f"kept {path}: KL {now:.5f}")
    return chosen
