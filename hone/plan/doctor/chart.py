"""The chart of a run: every fact that a finding may look at, read from its folder or gathered while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median
from typing import Any, NamedTuple

from hone.plan.advise import COMPARING, IMITATING, learning_rate

Point = tuple[float, float]
"""(step, value)."""

LARGEST = 1e15


def _number(value: object) -> float | None:
    """The value if it is a number that can be meant."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST else None


class Rows(NamedTuple):
    """What each held-out row cost at one evaluation, in nats for a learned token."""

    step: float
    losses: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """One run. What was not recorded is missing, and a finding that needs it says so.

    Losses are in nats; `total` is the number of steps that the run is meant to take; a run that is `running` has not taken them yet.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Of the data and the model, as the run wrote them when it started: rows, learned_tokens, ends, trainable, hidden ..."""
    rows: Sequence[Rows] = ()
    names: Sequence[str] = ()
    """Where each of these rows stands."""
    answers: Sequence[int] = ()
    """A number for each of them, the same for rows with the same answer."""
    ledger: Mapping[str, Any] = field(default_factory=dict)
    skipped: int = 0
    """Steps that moved nothing, since a number was not finite."""
    stopped: float | None = None
    """Share of the answers in an evaluation that ended by themselves."""
    probe: Mapping[str, Any] = field(default_factory=dict)
    """What `hone doctor --probe` measured on the model itself."""
    running: bool = False

    def __getitem__(self, key: str) -> Any:
        """A setting by its dotted name; None where there is no such setting."""
        section, _, name = key.partition(".")
        inside = self.settings.get(section)
        return inside.get(name) if isinstance(inside, Mapping) else None

    def values(self, name: str) -> list[float]:
        """The values of a curve without their steps."""
        return [value for _, value in self.series.get(name, ())]

    def number(self, key: str) -> float | None:
        """A setting that is a number."""
        return _number(self[key])

    def fact(self, name: str) -> float | None:
        """A number that the run wrote down when it started."""
        return _number(self.facts.get(name))

    def measured(self, name: str) -> float | None:
        """A number of the probe."""
        return _number(self.probe.get(name))

    def fate(self, kind: str) -> int:
        """Rows of the ledger that ended in one way: trained, held_out, truncated, masked or dropped."""
        part = self.ledger.get(kind)
        return int(_number(part.get("rows")) or 0) if isinstance(part, Mapping) else 0

    def reasons(self, kind: str) -> list[str]:
        """Why rows ended in this way, the commonest first."""
        part = self.ledger.get(kind)
        told = part.get("reasons") if isinstance(part, Mapping) else None
        return [str(reason) for reason in told] if isinstance(told, Mapping) else []

    @property
    def rows_in_all(self) -> int | None:
        """Rows of all sources, whatever became of them."""
        total = _number(self.ledger.get("total"))
        return int(total) if total is not None else None

    @property
    def objective(self) -> str:
        return str(self["objective.name"] or "sft")

    @property
    def imitates(self) -> bool:
        """Whether the loss is that of given answers, so that the bands of the field apply."""
        return self.objective in IMITATING

    @property
    def reinforces(self) -> bool:
        """Whether the model learns from what it writes itself."""
        return isinstance(self.settings.get("rollout"), Mapping)

    @property
    def full(self) -> bool:
        return str(self["tuning.method"]) == "full"

    @property
    def rate(self) -> float | None:
        value = self.number("optim.learning_rate")
        return value if value is not None and value > 0 else None

    @property
    def advised(self) -> float | None:
        """The learning rate that the adviser gives this method on a model of this width."""
        start, hidden = self.fact("rate"), self.fact("hidden")
        if start is None or hidden is None or start <= 0 or hidden < 1:
            return None
        return float(learning_rate(start, int(hidden), pace=1.0 if self.imitates else COMPARING).value)

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return int(max((points[-1][0] for points in self.series.values() if points), default=0))

    @property
    def total(self) -> int | None:
        """Steps that the run is meant to take, where its settings and its data tell."""
        if most := self.number("optim.max_steps"):
            return int(most)
        each = self.epoch_steps
        return max(1, round((self.number("optim.epochs") or 1) * each)) if each and not self.reinforces else None

    @property
    def epoch_steps(self) -> int | None:
        """Steps of one pass over the data."""
        rows, batch = self.fact("rows"), self.number("optim.batch_size")
        return max(1, -int(-rows // batch)) if rows and batch and batch >= 1 else None

    @property
    def base(self) -> float | None:
        """Held-out loss before the first step: that of the base model."""
        held = self.series.get("eval_loss", ())
        return held[0][1] if held and held[0][0] == 0 else None

    @cached_property
    def held(self) -> list[float]:
        return self.values("eval_loss")

    @property
    def best(self) -> Point | None:
        """The evaluation with the lowest held-out loss."""
        return min(self.series.get("eval_loss", ()), key=lambda point: point[1], default=None)

    def early(self, name: str = "loss", share: float = 0.2) -> float | None:
        """The mean of the first part of a curve."""
        values = self.values(name)
        return fmean(values[: max(1, round(share * len(values)))]) if values else None

    def late(self, name: str = "loss", share: float = 0.2) -> float | None:
        """The mean of the last part of a curve."""
        values = self.values(name)
        return fmean(values[-max(1, round(share * len(values))) :]) if values else None

    def middle(self, name: str) -> float | None:
        """The median of a curve."""
        values = self.values(name)
        return median(values) if values else None

    @property
    def times(self) -> float | None:
        """The learning rate as a multiple of the advised one."""
        return self.rate / self.advised if self.rate and self.advised else None

    @property
    def start(self) -> float | None:
        """The loss of the first step, or the base model's held-out loss where that is larger: what a run must not rise above."""
        losses = self.values("loss")
        return max(losses[0], self.base or losses[0]) if losses else None

    @property
    def calm(self) -> list[float]:
        """The training loss as means over a few steps, so that one hard batch is no spike."""
        values = self.values("loss")
        width = max(1, min(5, len(values) // 4))
        return [fmean(values[i : i + width]) for i in range(len(values) - width + 1)]

    @property
    def shaken(self) -> bool:
        """Whether the training loss has risen clearly above where it began, so that what follows is no usual learning."""
        return self.start is not None and max(self.calm, default=0.0) > 1.15 * self.start

    @property
    def gain(self) -> float | None:
        """Share of the base model's held-out loss that is gone at the end; below zero where it grew."""
        base = self.base
        return (base - self.held[-1]) / base if base and len(self.held) > 1 else None

    @property
    def best_gain(self) -> float | None:
        """The same at the best evaluation."""
        base, best = self.base, self.best
        return (base - best[1]) / base if base and best is not None and len(self.held) > 1 else None
