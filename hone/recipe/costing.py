"""What a sweep will take: the plan of every arm, with the data counted once, and the sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from hone.core.errors import HoneError
from hone.plan.machines import Machine
from hone.recipe import halving
from hone.recipe.forecast import Forecast, Tokens, Wish, count_tokens, forecast
from hone.recipe.grid import Arm, Axis
from hone.recipe.sweep import Sweep, in_arm


class Counted:
    """Counts the tokens of each data set once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Tokens, list[str]]] = {}

    def __call__(self, data: Any, folder: Any, **how: Any) -> tuple[Tokens, list[str]]:
        key = repr((data, folder, {name: value for name, value in how.items() if name != "batch"}))
        if key not in self._known:
            self._known[key] = count_tokens(data, folder, **how)
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Cost:
    """The whole of a sweep."""

    arms: tuple[tuple[Arm, Forecast], ...]
    seconds: float | None
    low: float
    high: float
    peak: int
    """Bytes of the arm that takes the most."""
    disk: int
    runs: float
    """How many whole runs it comes to."""

    @property
    def fits(self) -> bool:
        return all(found.fits for _, found in self.arms)


def cost(sweep: Sweep, machine: Machine, *, halve: bool = False) -> Cost:
    """Plan every arm. Raises what training would raise, naming the arm, and C147 for an arm that does not fit into memory."""
    count, found = Counted(), []
    for arm in sweep.arms:
        try:
            found.append((arm, forecast(sweep.raws[arm.folder], Wish(machine), count)))
        except HoneError as error:
            raise in_arm(error, arm) from None
    names = len({arm.name for arm in sweep.arms})
    share = halving.cost(names) / names if halve else 1.0
    times = [one.time for _, one in found]
    known = [time for time in times if time is not None]
    sums = [share * sum(getattr(time, end) for time in known) for end in ("seconds", "low", "high")]
    disk = sum(one.disk["checkpoints"] + one.disk["artifact"] for _, one in found)
    return Cost(tuple(found), sums[0] if len(known) == len(times) else None, sums[1], sums[2],
                max(one.memory.peak for _, one in found), disk, share * len(found))  # fmt: skip


def check_memory(cost: Cost) -> None:
    """C147 where an arm does not fit."""
    bad = next(((arm, one) for arm, one in cost.arms if not one.fits), None)
    if bad is not None:
        arm, one = bad
        ways = one.ways[0].settings if one.ways else {}
        fix = (
            "it fits with " + " ".join(f"{key}={value}" for key, value in ways.items()) if ways else "take a smaller model or shorter rows"
        )
        what = f"this arm needs {one.memory.peak / 1e9:.3g} GB of {one.machine.usable / 1e9:.3g} GB"
        raise HoneError("C147", what, where=f"arm {arm.folder}", fix=fix)


def combinations(axes: Sequence[Axis], seeds: int) -> str:
    """How the number of runs comes about: 4 x 3 x 3 seeds."""
    parts = [str(len(axis.values)) for axis in axes if axis.values] + ([f"{seeds} seeds"] if seeds else [])
    return " x ".join(parts) if len(parts) > 1 and prod(len(axis.values) or 1 for axis in axes) > 1 else ""
