"""Hooks that join rooms which do not know each other: progress, trackers and samples beside the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hone.core.events import Events
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


class Written(BaseHook):
    """Adds what is known of the sequences that the policy wrote itself to the numbers of the step."""

    def __init__(self, source: OnPolicy) -> None:
        self.source = source

    def stepped(self, state: State) -> None:
        state.metrics |= self.source.metrics


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
