"""An objective is a pure function from signals to a summed loss. Its keyword arguments are its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from hone.core.config import parse, settings_of
from hone.core.registry import Registry
from hone.core.types import Loss, Signals, Unit


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, what it needs to be told, and what its sum is divided by."""

    name: str
    fn: Callable[..., Loss]
    needs: frozenset[str]
    unit: Unit

    def __call__(self, signals: Signals) -> Loss:
        return self.fn(signals)

    def settings(self) -> type:
        """The settings class, read from the function's keyword-only arguments."""
        return settings_of(self.fn)

    def bind(self, **values: Any) -> Objective:
        """The same objective with its settings fixed. Raises C001, C002 for what it does not take."""
        checked: Any = parse(self.settings(), values, section=f"objective.{self.name}")
        return Objective(self.name, partial(self.fn, **asdict(checked)), self.needs, self.unit)


OBJECTIVES: Registry[Objective] = Registry("objective")


def objective(*, needs: str, unit: Unit) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Register a loss function under its own name. `needs` lists signals: logp, ref_logp, entropy."""

    def add(fn: Callable[..., Loss]) -> Callable[..., Loss]:
        OBJECTIVES.add(fn.__name__)(Objective(fn.__name__, fn, frozenset(needs.split()), unit))
        return fn

    return add
