"""Several rewards and their weights: asks each about all answers, weighs what they say, and lets nothing fail in silence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from hone.core.errors import HoneError
from hone.rollout.rewards.base import REWARDS, Fault, Reward, Score, Tools, Written
from hone.rollout.rewards.worker import guarded

OnError = Literal["zero", "drop", "fail"]
DULL, HOPELESS = 10, 50
"""Rollouts in a row without any difference after which a person is told, and after which the run stops."""

Tell = Callable[..., None]
"""`tell(kind, **fields)`, as `hone.core.events.Events.emit`."""


class Named(NamedTuple):
    """One reward of a panel."""

    name: str
    weight: float
    reward: Reward


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a panel says about the answers of one rollout."""

    totals: list[float | None]
    """Weighted sum of the rewards for each answer; None where the answer is dropped."""
    parts: dict[str, list[float | None]]
    """The score that each reward gave, unweighted; None where it failed."""
    weights: dict[str, float]

    def weighted(self, i: int) -> dict[str, float]:
        """What each reward adds to the total of one answer."""
        return {name: self.weights[name] * (scores[i] or 0.0) for name, scores in self.parts.items()}

    def metrics(self) -> dict[str, float]:
        """Mean total, the mean of each reward by name, and the share of answers that a reward had no score for."""
        found = {f"reward/{name}": _mean(scores) for name, scores in self.parts.items()}
        failed = sum(any(scores[i] is None for scores in self.parts.values()) for i in range(len(self.totals)))
        return {"reward": _mean(self.totals), **found} | ({"reward_failed": failed / len(self.totals)} if failed else {})


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else math.nan


class Panel:
    """The rewards of a run. `on_error` decides about answers that a reward has no score for.

    zero: the reward counts as 0. drop: the answer is left out of its group. fail: the run stops with R001 ... R004.
    """

    def __init__(self, rewards: Sequence[Named], *, on_error: OnError = "zero", tell: Tell | None = None) -> None:
        self.rewards, self.on_error = tuple(rewards), on_error
        self._tell: Tell = tell or (lambda kind, **fields: None)
        self._dull: dict[str, int] = {}

    @classmethod
    def of(
        cls, wanted: Sequence[str | Mapping[str, Any]], tools: Tools | None = None, *, on_error: OnError = "zero", tell: Tell | None = None
    ) -> Panel:
        """From names, `file.py:function`, or {name, weight, settings ...}. Raises C001, C002, C003, C040, C062 and C064."""
        named: list[Named] = []
        for each in wanted:
            made = _named({"name": each} if isinstance(each, str) else dict(each), tools or Tools())
            twins = sum(other.name.partition(" ")[0] == made.name for other in named)
            named.append(made._replace(name=f"{made.name} {twins + 1}") if twins else made)
        return cls(named, on_error=on_error, tell=tell)

    def judge(self, answers: Sequence[Written], earned: Sequence[Mapping[str, float]] = ()) -> Verdict:
        """Ask all rewards; `earned` is what each answer has already got by name, from an environment.

        Raises R001 ... R004 where `on_error` is fail, and R005 where nothing ever differs.
        """
        parts = {each.name: self._ask(each, answers) for each in self.rewards}
        weights = {each.name: each.weight for each in self.rewards}
        for name in sorted({name for each in earned for name in each}):
            parts[name], weights[name] = [each.get(name, 0.0) for each in earned], 1.0
        totals = [self._total([(weights[name], scores[i]) for name, scores in parts.items()]) for i in range(len(answers))]
        for name, scores in ({**parts, "the whole reward": totals} if parts else {}).items():
            self._watch(name, scores)
        return Verdict(totals, parts, weights)

    def _total(self, scores: Sequence[tuple[float, float | None]]) -> float | None:
        if self.on_error == "drop" and any(score is None for _, score in scores):
            return None
        return sum(weight * (score or 0.0) for weight, score in scores)

    def _ask(self, each: Named, answers: Sequence[Written]) -> list[float | None]:
        said = _asked(each.reward, answers)
        found: list[float | None] = []
        for written, score in zip(answers, said, strict=True):
            fault = _fault(score)
            if fault is not None:
                self._record(each.name, written, fault)
            found.append(None if fault is not None else float(score))  # type: ignore[arg-type]
        return found

    def _record(self, name: str, written: Written, fault: Fault) -> None:
        where = f"{written.origin}, reward '{name}'"
        if self.on_error == "fail":
            fix = "mend the reward, or set rollout.on_error to zero or drop"
            raise HoneError(fault.code, fault.what, where=where, fix=fix)
        self._tell("reward_error", code=fault.code, what=fault.what, where=where, answer=written.text[:200])

    def _watch(self, name: str, scores: Sequence[float | None]) -> None:
        """A reward that says the same about everything teaches nothing, which no loss shows."""
        same = len(scores) > 1 and len(set(scores)) == 1
        self._dull[name] = self._dull.get(name, 0) + 1 if same else 0
        what = f"{name} was {scores[0] if scores else None} for every answer of {self._dull[name]} rollouts in a row"
        if self._dull[name] == DULL:
            self._tell("warning", code="R005", what=what)
        if self._dull[name] >= HOPELESS and name == "the whole reward":
            raise HoneError("R005", what, where="rollout.rewards", fix="look at the samples: is the task too hard, or the reward wrong?")


def _asked(reward: Reward, answers: Sequence[Written]) -> Sequence[Score]:
    try:
        said = list(reward(answers))
    except HoneError:
        raise
    except Exception as error:  # a reward of the user's own, given from Python, may fail in any way
        return [Fault("R003", f"{type(error).__name__}: {error}")] * len(answers)
    if len(said) != len(answers):
        return [Fault("R002", f"asked about {len(answers)} answers, it returned {len(said)} scores")] * len(answers)
    return said


def _fault(score: Any) -> Fault | None:
    if isinstance(score, Fault):
        return score
    if not isinstance(score, int | float):
        return Fault("R001", f"it returned {score!r:.60}, not a number")
    return None if math.isfinite(score) else Fault("R001", f"it returned {score}")


def _named(wanted: dict[str, Any], tools: Tools) -> Named:
    if "name" not in wanted:
        fix = "write a name, or {name: number, weight: 2.0}"
        raise HoneError("C001", "a reward has a name", where="rollout.rewards", fix=fix)
    name, weight = str(wanted.pop("name")), wanted.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise HoneError("C001", f"the weight of a reward is a number, not {weight!r}", where=f"rollout.rewards.{name}")
    if ":" in name:
        return Named(name.rpartition(":")[2], float(weight), guarded(name, tools, wanted))
    return Named(name, float(weight), REWARDS[name].bind(tools, wanted))
