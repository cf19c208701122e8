"""An objective is a pure function from signals to a summed loss. Its keyword arguments are its settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hone.core.config import parse, settings_of
from hone.core.errors import HoneError
from hone.core.registry import Registry
from hone.core.types import Group, Loss, Needs, Shape, Signals, Unit

if TYPE_CHECKING:
    from torch import Tensor

Ask = str | Callable[..., str | Needs]
"""Names of signals ("logp ref_logp"), or a function that tells them from the objective's settings."""
Stat = Callable[..., "Tensor"]
"""Signals of a batch (and the objective's settings) to a vector; those of all batches of a step are joined."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, what it needs to be told, and what its sum is divided by. `bind` fixes its settings."""

    name: str
    fn: Callable[..., Loss]
    ask: Ask
    unit: Unit
    data: Shape = "single"
    """The shape of data that it learns from."""
    stats: Mapping[str, Stat] = field(default_factory=dict)
    """Statistics by name that must be exact over the whole optimiser step, whatever its micro-batches. They are worked out before
    the step, without gradients, and arrive as `Signals.step`."""
    aside: Callable[[Group, Group], Group] | None = None
    """From a group and its successor in the data, one that is asked for `stats` instead of those that are learned."""
    facts: str = ""
    """What it must know beside the text, named by its shape: "label_S" is a number for each sequence, "old_logp_N" one for each
    read, and both come without the suffix in `Signals.facts`."""
    pace: float = 1.0
    """Factor on the learning rate that a tuning method usually starts from, for models about 4096 wide."""
    only: Mapping[str, str] = field(default_factory=dict)
    """Setting -> what it does nothing without: another setting that is not zero ("kl"), or that has a certain value ("kind=alpha")."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Settings that are not the defaults."""

    def __call__(self, signals: Signals) -> Loss:
        return self.fn(signals, **self.values)

    @property
    def needs(self) -> Needs:
        """The signals that it reads with these settings, each with its parameters."""
        return asked(self.ask if isinstance(self.ask, str) else _told(self.ask, self.full))

    @property
    def full(self) -> dict[str, Any]:
        """All settings with their values."""
        return _defaults(self.fn) | dict(self.values)

    def statistics(self, signals: Signals) -> dict[str, Tensor]:
        """What one batch adds to the statistics of its step."""
        return {name: _told(stat, self.full, signals) for name, stat in self.stats.items()}

    def settings(self) -> type:
        """The settings class, read from the function's keyword-only arguments."""
        return settings_of(self.fn)

    def bind(self, **values: Any) -> Objective:
        """The same objective with its settings fixed. Raises C001, C002 for what it does not take, C071 for what would do nothing."""
        checked: Any = parse(self.settings(), values, section=f"objective.{self.name}")
        bound = replace(self, values={name: getattr(checked, name) for name in _defaults(self.fn)})
        self._check_idle(bound.values)
        assert bound.needs, "an objective reads something; some refuse settings here"
        return bound

    def _check_idle(self, values: Mapping[str, Any]) -> None:
        for name, other in self.only.items():
            key, equals, wanted = other.partition("=")
            acts = str(values[key]) == wanted if equals else bool(values[key])
            if values[name] != self.full[name] and not acts:
                what = f"objective.{name}={values[name]} would do nothing while objective.{key} is {values[key]}"
                fix = f"set objective.{key}{f'={wanted}' if equals else ''}, or leave objective.{name} out"
                raise HoneError("C071", what, where=f"objective.{name}", fix=fix)


OBJECTIVES: Registry[Objective] = Registry("objective")


def objective(*, needs: Ask, unit: Unit, **options: Any) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Register a loss function under its own name.

    `needs` lists signals: logp, ref_logp, entropy, mean_logp, divergence, value, score, step_score (see `Signals`); where the
    settings decide, it is a function of (some of) them that returns such a list, or the signals with their parameters.
    `options` are data, stats, aside, facts, pace and only of `Objective`.
    """

    def add(fn: Callable[..., Loss]) -> Callable[..., Loss]:
        OBJECTIVES.add(fn.__name__)(Objective(fn.__name__, fn, needs, unit, **options))
        return fn

    return add


def asked(needs: str | Needs) -> Needs:
    """A list of names as signals without parameters."""
    return {name: {} for name in needs.split()} if isinstance(needs, str) else needs


def _defaults(fn: Callable[..., Any]) -> dict[str, Any]:
    return {p.name: p.default for p in inspect.signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY}


def _told(fn: Callable[..., Any], settings: Mapping[str, Any], *args: Any) -> Any:
    """Call a function with those settings that it takes."""
    return partial(fn, *args)(**{name: settings[name] for name in _defaults(fn)})
