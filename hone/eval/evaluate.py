"""Questions, answers and scores of one model, with intervals; and the comparison of two models on the same questions."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hone.core.errors import HoneError
from hone.core.estimates import Estimate
from hone.core.types import Conversation, Example
from hone.eval.graders import Grader, graded, grader, normal
from hone.eval.intervals import Statistic, bootstrap, paired, wilson
from hone.eval.labels import codes, label_in, label_set, macro_f1
from hone.eval.likelihood import STATISTICS
from hone.eval.questions import Question, questions

TEXT_TASK = "held-out text"
ACCURACY, MACRO_F1 = "accuracy", "macro_f1"


class Given(NamedTuple):
    """An answer as text, and whether it stopped by itself (None where that is not known)."""

    text: str
    stopped: bool | None = None


Answerer = Callable[[Sequence[Question]], Sequence[Given | None]]
"""Answers questions; None stands for one that cannot be asked."""


class Reply(Protocol):
    """What a sampler gives back."""

    @property
    def text(self) -> str: ...
    @property
    def stop_reason(self) -> str: ...


class Template(Protocol):
    """What turns a conversation into a prompt."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    def prompt_ids(self, messages: Conversation, tools: Any = ()) -> list[int]: ...


def by_model(
    generate: Callable[..., Sequence[Reply]], template: Template, *, max_new_tokens: int = 256, context: int | None = None
) -> Answerer:
    """Answers written greedily by `Sampler.generate` or `Engine.sample`. Prompts that fill the whole context are not asked."""

    def answer(asked: Sequence[Question]) -> list[Given | None]:
        prompts = [template.prompt_ids(question.history, question.tools) for question in asked]
        fits = [context is None or len(prompt) < context for prompt in prompts]
        fitting = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
        replies = iter(generate(fitting, max_new_tokens=max_new_tokens, stop_ids=template.stop_ids))
        return [_given(next(replies)) if fit else None for fit in fits]

    return answer


def by_function(fn: Callable[[Conversation], str]) -> Answerer:
    """Answers of anything else: a function from the messages so far to a text."""
    return lambda asked: [Given(fn(question.history)) for question in asked]


def _given(reply: Reply) -> Given:
    return Given(reply.text, reply.stop_reason == "stop")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question, its answer, and what it scored."""

    task: str
    prompt: str
    expected: str
    answer: str
    stopped: bool | None
    scores: dict[str, float]
    label: str | None = None
    """The label that was heard in the answer, in tasks that have labels."""
    source: str = ""
    row: int = 0
    turn: int = 0

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """What makes it the same question in another evaluation."""
        return (self.task, self.source, self.row, self.turn, self.prompt)


@dataclass(frozen=True)
class Evaluation:
    """What one model did on held-out data."""

    outcomes: tuple[Outcome, ...] = ()
    left_out: int = 0
    """Questions whose prompt fills the model's whole context."""
    likelihood: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    """As `hone.eval.likelihood.likelihood` makes it; empty where no text was read."""

    def tasks(self) -> list[dict[str, Any]]:
        """A line for each task and metric: task, metric, n, value, low, high."""
        return [{"task": m.task, "metric": m.name, "n": len(m.rows), **m.estimate().to_json()} for m in measurements(self)]

    def stopped(self) -> Estimate | None:
        """Share of the answers that stopped by themselves."""
        known = [one.stopped for one in self.outcomes if one.stopped is not None]
        return wilson(sum(known), len(known)) if known else None

    def to_json(self, *, samples: int = 3) -> dict[str, Any]:
        """The summary, the first few answers of each task, and everything that `of_json` needs."""
        stopped = self.stopped()
        shown = ("task", "prompt", "expected", "answer", "scores")
        return {
            "tasks": self.tasks(),
            "samples": [{name: asdict(one)[name] for name in shown} for one in _first(self.outcomes, samples)],
            "stopped": stopped.to_json() if stopped else {},
            "left_out": self.left_out,
            "outcomes": [asdict(one) for one in self.outcomes],
            "likelihood": self.likelihood.tolist(),
        }

    @classmethod
    def of_json(cls, saved: dict[str, Any]) -> Evaluation:
        rows = np.array(saved["likelihood"], dtype=np.float64).reshape(-1, 3)
        return cls(tuple(Outcome(**one) for one in saved["outcomes"]), saved["left_out"], rows)


def evaluate(
    answer: Answerer, rows: Iterable[Example], *, metrics: Sequence[str] = ("auto",), max_questions: int | None = None, seed: int = 0
) -> Evaluation:
    """Ask every answer of the rows and score it.

    "auto" is accuracy and macro F1 for tasks whose answers are labels, and exact match for the others; other metrics are
    names of `hone.eval.graders`, or `module:function`. Of more than `max_questions` a seeded choice is asked.
    Raises C003, C040, C041 for graders, and what the answerer raises.
    """
    asked = list(questions(rows))
    labels = _labels(asked) if "auto" in metrics else {}
    if max_questions is not None and len(asked) > max_questions:
        chosen = set(random.Random(seed).sample(range(len(asked)), max_questions))
        asked = [question for i, question in enumerate(asked) if i in chosen]
    wanted = {name: grader(name) for name in dict.fromkeys("exact_match" if name == "auto" else name for name in metrics)}
    given = answer(asked)
    outcomes = []
    for question, one in zip(asked, given, strict=True):
        if one is not None:
            mine = labels.get(question.task, ())
            graders = {name: grade for name, grade in wanted.items() if name in metrics or not mine}
            outcomes.append(_outcome(question, one, graders, mine))
    return Evaluation(tuple(outcomes), len(asked) - len(outcomes))


def _labels(asked: Sequence[Question]) -> dict[str, tuple[str, ...]]:
    """The labels of each task that has some."""
    expected: dict[str, list[str]] = defaultdict(list)
    for question in asked:
        expected[question.task].append(question.expected)
    return {task: labels for task, texts in expected.items() if (labels := label_set(texts))}


def _outcome(question: Question, given: Given, graders: Mapping[str, Grader], labels: tuple[str, ...]) -> Outcome:
    expected, origin = question.expected, question.origin
    label = label_in(given.text, labels) if labels else None
    scores = {ACCURACY: float(label == normal(expected))} if labels else {}
    scores |= {name: graded(name, grade, given.text, expected, question.columns) for name, grade in graders.items()}
    place = {"source": origin.source, "row": origin.row, "turn": question.turn}
    return Outcome(question.task, question.prompt, expected, given.text, given.stopped, scores, label, **place)  # type: ignore[arg-type]


class Majority(NamedTuple):
    """What always giving the commonest label would score."""

    task: str
    label: str
    share: float


def majorities(evaluation: Evaluation) -> list[Majority]:
    """The score to beat in each task that has labels."""
    by_task: dict[str, Counter[str]] = defaultdict(Counter)
    for one in evaluation.outcomes:
        if ACCURACY in one.scores:
            by_task[one.task][normal(one.expected)] += 1
    commonest = ((task, counts.most_common(1)[0], counts.total()) for task, counts in by_task.items())
    return [Majority(task, label, count / total) for task, (label, count), total in commonest]


class Measurement(NamedTuple):
    """One metric of one task: a row for each question, and what is made of the rows."""

    task: str
    name: str
    rows: NDArray[Any]
    statistic: Statistic

    def estimate(self) -> Estimate:
        """Wilson's interval for shares of right answers, resampling for all else."""
        if self.statistic is _mean and np.isin(self.rows, (0.0, 1.0)).all():
            return wilson(float(self.rows.sum()), len(self.rows))
        return bootstrap(self.statistic, self.rows)


def _mean(rows: NDArray[Any]) -> float:
    return float(rows.mean())


def measurements(evaluation: Evaluation) -> list[Measurement]:
    """Every metric of every task, tasks in the order of their first question."""
    by_task: dict[str, list[Outcome]] = defaultdict(list)
    for one in evaluation.outcomes:
        by_task[one.task].append(one)
    found = []
    for task, outcomes in by_task.items():
        for name in outcomes[0].scores:
            found.append(Measurement(task, name, np.array([one.scores[name] for one in outcomes]), _mean))
        if ACCURACY in outcomes[0].scores:
            rows = codes([one.expected for one in outcomes], [one.label for one in outcomes])
            found.append(Measurement(task, MACRO_F1, rows, macro_f1))
    if len(evaluation.likelihood):
        found += [Measurement(TEXT_TASK, name, evaluation.likelihood, statistic) for name, statistic in STATISTICS.items()]
    return found


def compare(before: Evaluation, after: Evaluation, *, samples: int = 3) -> dict[str, Any]:
    """What changed: each measurement before and after, and the interval of the difference on the same questions.

    The shape of a run's evaluation.json. Raises C042 where the two were not asked the same.
    """
    if [one.key for one in before.outcomes] != [one.key for one in after.outcomes] or len(before.likelihood) != len(after.likelihood):
        raise HoneError(
            "C042", "the two evaluations were not asked the same questions", fix="evaluate both on the same data, in the same way"
        )
    tasks = []
    for old, new in zip(measurements(before), measurements(after), strict=True):
        assert (old.task, old.name) == (new.task, new.name), "the same questions are measured the same way"
        sides = {"before": old.estimate(), "after": new.estimate(), "difference": paired(new.statistic, old.rows, new.rows)}
        tasks.append({"task": old.task, "metric": old.name, "n": len(old.rows)} | {side: one.to_json() for side, one in sides.items()})
    shown = zip(_first(before.outcomes, samples), _first(after.outcomes, samples), strict=True)
    stopped = {"before": before.stopped(), "after": after.stopped()}
    return {
        "tasks": tasks,
        "samples": [
            {"task": old.task, "prompt": old.prompt, "expected": old.expected, "before": old.answer, "after": new.answer}
            for old, new in shown
        ],
        "stopped": {side: estimate.value for side, estimate in stopped.items() if estimate is not None},
        "left_out": after.left_out,
    }


def _first(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """The first answers of each task: not chosen by how good they are."""
    seen: dict[str, int] = defaultdict(int)
    kept = []
    for one in outcomes:
        seen[one.task] += 1
        if seen[one.task] <= count:
            kept.append(one)
    return kept
