"""Hooks that join rooms which do not know each other: progress, trackers and samples beside the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hone.core.events import Events
from hone.core.types import Origin, Signals
from hone.plan.doctor import Chart, diagnose
from hone.plan.doctor.base import LIKELY
from hone.recipe.foresight import outlook
from hone.report.chart import ASIDE, chart_of
from hone.report.folder import read_run
from hone.report.progress import Progress
from hone.report.trackers import Guarded
from hone.rollout.on_policy import OnPolicy
from hone.train.loop import BaseHook, State


class ShowProgress(BaseHook):
    """Feeds the live line of the terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def stepped(self, state: State) -> None:
        self.progress.update(state.step, state.metrics)


class Foresee(BaseHook):
    """After each evaluation, once 15 % are done, says what the held-out loss will be at the end. Comes after the evaluation."""

    def __init__(self, folder: Path, events: Events, note: Callable[[str], None]) -> None:
        self.folder, self.events, self.note = folder, events, note

    def stepped(self, state: State) -> None:
        if "eval_loss" not in state.metrics or state.step == state.total:
            return
        found = outlook(read_run(self.folder), state.total)
        if found.end is not None:
            self.events.emit("forecast", step=state.step, **found.end._asdict())
            self.note(str(found))


class Written(BaseHook):
    """Adds what is known of the sequences that the policy wrote itself to the numbers of the step."""

    def __init__(self, source: OnPolicy) -> None:
        self.source = source

    def stepped(self, state: State) -> None:
        state.metrics |= self.source.metrics


class RowLosses(BaseHook):
    """The loss of each held-out row at every evaluation, into rows.jsonl: noise and leaks show there, and not in the mean."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.latest: dict[Origin, float] = {}
        self.answers: dict[Origin, int] = {}
        """Hash of what is learned of each row; rows with the same answer can be compared with each other."""

    def hear(self, signals: Signals) -> None:
        """Take the mean negative log-likelihood of each answer in a batch, in nats for a learned token."""
        origins = signals.batch.origins
        self.latest |= zip(origins, signals.mean(-signals.logp).tolist(), strict=True)
        if not self.answers.keys() >= set(origins):
            said = list(zip(signals.batch.row_N.tolist(), signals.batch.target_N.tolist(), strict=True))
            self.answers |= {origin: hash(tuple(token for row, token in said if row == i)) for i, origin in enumerate(origins)}

    def started(self, state: State) -> None:
        self._tell(state)

    def stepped(self, state: State) -> None:
        self._tell(state)

    def _tell(self, state: State) -> None:
        """Write what was heard; an evaluation that was given up half-way leaves nothing."""
        if self.latest and "eval_loss" in state.metrics:
            order = sorted(self.latest)
            about: dict[str, list[str] | list[int]] = {}
            if state.step == 0:
                known = {answer: number for number, answer in enumerate(dict.fromkeys(self.answers[one] for one in order))}
                about = {"rows": [str(one) for one in order], "answers": [known[self.answers[one]] for one in order]}
            self.events.rows(state.step, [self.latest[one] for one in order], **about)
        self.latest = {}


class Examine(BaseHook):
    """The doctor beside the run: asks at every evaluation, and about twenty times besides; tells each finding once."""

    def __init__(self, folder: Path, *, events: Events, note: Callable[[str], None]) -> None:
        self.folder, self.events, self.note = folder, events, note
        self.chart = Chart()
        self.series: dict[str, list[tuple[float, float]]] = {}
        self.told: set[str] = set()

    def started(self, state: State) -> None:
        run = read_run(self.folder)
        self.chart = replace(chart_of(run), running=True)
        self.series = {name: list(points) for name, points in self.chart.series.items()}
        self.told = {str(event["code"]) for event in run.of_kind("finding") if "code" in event}

    def stepped(self, state: State) -> None:
        for name, value in state.metrics.items():
            if name not in ASIDE:
                self.series.setdefault(name, []).append((float(state.step), value))
        if "eval_loss" in state.metrics or state.step % max(5, state.total // 20) == 0:
            self._ask(state.step)

    def _ask(self, step: int) -> None:
        for one in diagnose(replace(self.chart, series=self.series)).findings:
            if one.confidence >= LIKELY and one.code not in self.told:
                self.told.add(one.code)
                self.events.emit("finding", code=one.code, step=step, what=f"{one.name}: {one.verdict}", evidence=list(one.evidence))
                self.note(f"{one.code} {one.name}: {one.verdict}")


class Track(BaseHook):
    """Feeds TensorBoard, W&B and the like; they can fail, the run goes on."""

    def __init__(self, trackers: Sequence[Guarded]) -> None:
        self.trackers = trackers

    def stepped(self, state: State) -> None:
        for tracker in self.trackers:
            tracker.metrics(state.step, state.metrics)

    def finished(self, state: State) -> None:
        for tracker in self.trackers:
            tracker.finish()


class Samples(BaseHook):
    """Lets the model answer fixed prompts every so often, into the diary and the terminal."""

    def __init__(
        self, answer: Callable[[str], str], prompts: Sequence[str], *, every: int, events: Events, note: Callable[[str], None]
    ) -> None:
        self.answer, self.prompts, self.every, self.events, self.note = answer, prompts, every, events, note

    def stepped(self, state: State) -> None:
        if state.step % self.every and state.step != state.total:
            return
        model = state.engine.policy.model
        model.eval()
        for prompt in self.prompts:
            text = self.answer(prompt)
            self.events.emit("sample", step=state.step, prompt=prompt, answer=text)
            self.note(f"{prompt} -> {text}")
        model.train()
