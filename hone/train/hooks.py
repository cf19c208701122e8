"""What happens around the steps of a run: health, metrics, evaluation, checkpoints, stopping. Each hook is one idea."""

from __future__ import annotations

import json
import math
import os
import resource
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hone.core.events import Events
from hone.core.faults import fault_point
from hone.core.files import write_atomically
from hone.train import checkpoint
from hone.train.health import Health
from hone.train.loop import BaseHook, State
from hone.train.stopping import Stopper


class Watch(BaseHook):
    """Skips steps that are not finite; see `Health`."""

    def __init__(self, health: Health) -> None:
        self.health = health

    def accepts(self, state: State) -> bool:
        rows = [origin for batch in state.batches for origin in batch.origins]
        return self.health.observe(state.step, state.metrics["loss"], state.metrics["grad_norm"], rows) == "ok"


class Interrupt(BaseHook):
    """Lets a signal end the run at the last whole step."""

    def __init__(self, stopper: Stopper) -> None:
        self.stopper = stopper

    def wants_stop(self) -> bool:
        fault_point("mid_step")
        return self.stopper.requested

    def stepped(self, state: State) -> None:
        if state.engine.world.any(self.stopper.requested):
            state.stop = self.stopper.reason or "another process was asked to stop"


PAUSED = "paused"
"""Why a run stopped that shall go on later."""


class Until(BaseHook):
    """Pauses the run after a share of its steps; None never does. Comes last: everything else of that step has happened."""

    def __init__(self, share: float | None) -> None:
        self.share = share

    def started(self, state: State) -> None:
        self.stepped(state)

    def stepped(self, state: State) -> None:
        if self.share is not None and pause_at(self.share, state.total) <= state.step < state.total and not state.stop:
            state.stop = PAUSED


def pause_at(share: float, total: int) -> int:
    """The step after which a share of a run is done."""
    return max(1, math.ceil(share * total))


class Metrics(BaseHook):
    """One line of metrics.jsonl for every `every` steps, and for the last."""

    def __init__(self, events: Events, *, every: int, steps_per_epoch: int) -> None:
        self.events, self.every, self.steps_per_epoch = events, every, steps_per_epoch

    def stepped(self, state: State) -> None:
        state.metrics["epoch"] = state.step / self.steps_per_epoch
        state.metrics["memory_bytes"] = float(peak_memory())
        if state.step % self.every == 0 or state.step == state.total:
            self.events.metrics(state.step, state.metrics)


Between = Callable[[], None]
"""What a measurement calls between its batches, so that it can be given up."""


class GivenUp(Exception):
    """A measurement ended early because the run shall stop."""


class Evaluate(BaseHook):
    """Held-out loss every `every` steps and at the end; early stopping, and the memory of the best.

    A run that shall stop does not wait for the end of a measurement: it is made when the run goes on.
    """

    def __init__(
        self,
        measure: Callable[[Between], Mapping[str, float]],
        events: Events,
        *,
        every: int,
        patience: int | None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.measure, self.events, self.every, self.patience, self.stopped = measure, events, every, patience, stopped
        self.best: dict[str, Any] = {"loss": math.inf, "step": 0, "worse": 0, "owed": False}

    def started(self, state: State) -> None:
        if state.step == 0 or self.best["owed"]:
            self._evaluate(state)
        elif self._worn_out:
            state.stop = self._why

    def stepped(self, state: State) -> None:
        if state.step % self.every == 0 or state.step == state.total:
            self._evaluate(state)

    def _between(self, state: State) -> None:
        if self.stopped() and state.step < state.total:
            raise GivenUp

    @property
    def _worn_out(self) -> bool:
        return self.patience is not None and self.best["worse"] >= self.patience

    @property
    def _why(self) -> str:
        return f"the held-out loss has not improved for {self.patience} evaluations"

    def _evaluate(self, state: State) -> None:
        fault_point("evaluation")
        model = state.engine.policy.model
        model.eval()
        try:
            found = {key: float(value) for key, value in self.measure(partial(self._between, state)).items()}
        except GivenUp:
            self.best["owed"] = True
            return
        finally:
            model.train()
        self.best["owed"] = False
        state.metrics |= found
        self.events.metrics(state.step, found)
        if found["eval_loss"] < self.best["loss"]:
            self.best |= {"loss": found["eval_loss"], "step": state.step, "worse": 0}
            return
        self.best["worse"] += 1
        if self._worn_out:
            state.stop = self._why
            self.events.emit("early_stop", step=state.step, best_step=self.best["step"], best_loss=self.best["loss"])


class Shortage(BaseHook):
    """Remembers how large a micro-batch memory has allowed, in the diary and in memory.json, so that a resumed run need not ask again."""

    def __init__(self, folder: Path, events: Events) -> None:
        self.file, self.events = folder / "memory.json", events
        self.known: int | None = None

    def recall(self) -> int | None:
        """What an earlier start of the run has found."""
        if self.file.is_file():
            self.known = json.loads(self.file.read_text("utf-8"))["largest_micro_batch"]
        return self.known

    def started(self, state: State) -> None:
        self.note(state.step, state.engine.limit)

    def stepped(self, state: State) -> None:
        self.note(state.step, state.engine.limit)

    def note(self, step: int, limit: int | None) -> None:
        """Write down a limit that is new."""
        if limit is not None and limit != self.known:
            self.known = limit
            self.events.emit("out_of_memory", step=step, largest_micro_batch=limit)
            write_atomically(self.file, json.dumps({"largest_micro_batch": limit}))


class Checkpoints(BaseHook):
    """A checkpoint every `every` steps, at the best held-out loss if wanted, and at the end."""

    def __init__(
        self, folder: Path, *, every: int, keep: int, keep_best: bool, context: Mapping[str, Any], parts: Mapping[str, Any], events: Events
    ) -> None:
        self.folder, self.every, self.keep, self.keep_best = folder, every, keep, keep_best
        self.context, self.evaluate, self.health, self.events = context, parts.get("evaluate"), parts["health"], events
        self.source = parts["source"]
        self.saved = 0

    def stepped(self, state: State) -> None:
        fault_point("after_step")
        is_best = self.keep_best and self.evaluate is not None and self.evaluate.best["step"] == state.step
        if state.step % self.every == 0 or is_best:
            self._save(state)

    def finished(self, state: State) -> None:
        if self.saved != state.step and state.step > 0:
            self._save(state)

    def started(self, state: State) -> None:
        self.saved = state.step
        if state.step == 0 and self.keep_best and self.evaluate is not None:
            self._save(state)  # where nothing gets better than the start, the start is the best

    def _save(self, state: State) -> None:
        best = self.evaluate.best if self.evaluate is not None else None
        best = best if best is not None and math.isfinite(best["loss"]) else None
        kept = {"best": best if self.keep_best else None, "watched": best, "health": self.health.state(), "tokens": state.tokens}
        kept["source"] = dict(self.source.state())
        checkpoint.write(self.folder, state.step, state.engine.save(), {**self.context, **kept}, tell=self._tell, keep=self.keep)
        self.saved = state.step
        self.events.emit("checkpoint", step=state.step)

    def _tell(self, sentence: str) -> None:
        self.events.emit("warning", what=sentence)


PEAK = Path("/proc/self/clear_refs")
"""Where Linux is told to count the peak anew."""


def forget_peak() -> None:
    """Count the peak from what is held now, where the system lets us: an earlier run of this process may have had a higher one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif os.access(PEAK, os.W_OK):
        PEAK.write_text("5")


def peak_memory() -> int:
    """Largest resident memory of this process since its start or `forget_peak`, in bytes; with a GPU, the largest allocation there."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
