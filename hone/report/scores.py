"""The before/after measurements of a run as typed values, and the one sentence that they justify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hone.report.folder import Record, record, records
from hone.report.numbers import finite, percent, short

LOWER_IS_BETTER = ("loss", "perplexity", "bits_per_byte", "error", "mae", "rmse")
NAMES = {"exact_match": "exact match", "f1": "F1", "macro_f1": "macro F1", "bits_per_byte": "bits per byte"}


@dataclass(frozen=True)
class Measure:
    """A value and its confidence interval."""

    value: float
    low: float
    high: float
    share: bool = True
    """Whether values between 0 and 1 are parts of a whole; a loss of 0.08 is not 8 %."""

    @classmethod
    def of(cls, metric: str, value: float, low: float, high: float) -> Measure:
        return cls(value, low, high, metric not in LOWER_IS_BETTER)

    @property
    def text(self) -> str:
        return percent(self.value) if self._in_percent else short(self.value)

    @property
    def interval(self) -> str:
        """Both ends, or nothing where no interval is known."""
        if self.high <= self.low:
            return ""
        if self._in_percent:
            return f"{self.low * 100:.1f} to {percent(self.high)}"
        return f"{short(self.low)} to {short(self.high)}"

    @property
    def _in_percent(self) -> bool:
        return self.share and self.low >= 0 and self.high <= 1


@dataclass(frozen=True)
class Score:
    """One task measured by one metric, before and after training. Either side may be missing."""

    task: str
    metric: str
    n: int
    before: Measure | None
    after: Measure | None

    @property
    def lower_is_better(self) -> bool:
        return self.metric in LOWER_IS_BETTER

    @property
    def is_share(self) -> bool:
        """Whether the values are shares between 0 and 1."""
        return not self.lower_is_better and all(0 <= m.value <= 1 for m in self.sides)

    @property
    def sides(self) -> list[Measure]:
        return [m for m in (self.before, self.after) if m is not None]

    @property
    def gain(self) -> float | None:
        """How much better the tuned model is, in the metric's units; negative is worse."""
        if self.before is None or self.after is None:
            return None
        return (self.before.value - self.after.value) if self.lower_is_better else (self.after.value - self.before.value)

    @property
    def apart(self) -> bool:
        """Whether the two intervals do not overlap, so that the change is no accident of the sample."""
        if self.before is None or self.after is None:
            return False
        return self.before.high < self.after.low or self.after.high < self.before.low

    @property
    def outcome(self) -> str:
        """One word for the change: better, worse or within chance; empty if it was measured once."""
        if self.gain is None:
            return ""
        return ("better" if self.gain > 0 else "worse") if self.apart else "within chance"

    @property
    def metric_name(self) -> str:
        return NAMES.get(self.metric, self.metric.replace("_", " "))

    @property
    def change(self) -> str:
        """The signed difference, in points for shares."""
        if self.before is None or self.after is None:
            return ""
        delta = self.after.value - self.before.value
        sign = "\N{MINUS SIGN}" if delta < 0 else "+"
        return f"{sign}{abs(delta) * 100:.1f} points" if self.is_share else f"{sign}{short(abs(delta))}"


def read_scores(evaluation: Record) -> list[Score]:
    """The tasks of an evaluation.json that carry at least one number."""
    found = []
    for task in records(evaluation.get("tasks")):
        metric = str(task.get("metric", "score"))
        before, after = _measure(task.get("before"), metric), _measure(task.get("after"), metric)
        if before or after:
            n = int(finite(task.get("n")) or 0)
            found.append(Score(str(task.get("task", "task")), metric, n, before, after))
    return found


def averages(scores: Sequence[Score]) -> tuple[float, float] | None:
    """Mean share before and after, each task counting once, over the tasks measured on both sides; None if there is none."""
    both = [(s.before.value, s.after.value) for s in scores if s.is_share and s.before and s.after]
    if not both:
        return None
    return sum(b for b, _ in both) / len(both), sum(a for _, a in both) / len(both)


def _measure(value: object, metric: str) -> Measure | None:
    found = record(value)
    middle = finite(found.get("value"))
    if middle is None:
        return None
    low, high = finite(found.get("low")), finite(found.get("high"))
    return Measure.of(metric, middle, middle if low is None else low, middle if high is None else high)
