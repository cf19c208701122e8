"""The training loop: the only one. Everything else about a run is a hook."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from hone.core.types import Batch
from hone.objectives.base import Objective
from hone.train.engine import Engine, Stopped, Tally
from hone.train.optim import rate_at


class Source(Protocol):
    """Where sequences come from: the micro-batches of each optimiser step.

    `state` is what a resumed run needs beside the step, as JSON; most sources need nothing.
    """

    @property
    def steps_per_epoch(self) -> int: ...
    def __len__(self) -> int: ...
    def steps(self, first: int = 1) -> Iterator[list[Batch]]: ...
    def state(self) -> Mapping[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclass(slots=True)
class State:
    """What hooks see after a step."""

    engine: Engine
    step: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    tokens: int = 0
    """Tokens computed since the run began, resumed parts included."""
    stop: str = ""
    """A hook that wants the run to end says why."""


class Hook(Protocol):
    """A part of a run beside the loop. All methods are optional in spirit: the base class does nothing."""

    def started(self, state: State) -> None: ...
    def accepts(self, state: State) -> bool: ...
    def stepped(self, state: State) -> None: ...
    def wants_stop(self) -> bool: ...
    def finished(self, state: State) -> None: ...


class BaseHook:
    """Does nothing; hooks override what they need."""

    def started(self, state: State) -> None:
        """Before the first step, with `state.step` the last step already done."""

    def accepts(self, state: State) -> bool:
        """Whether the gradient at hand may move the weights."""
        return True

    def stepped(self, state: State) -> None:
        """After every optimiser step, accepted or not."""

    def wants_stop(self) -> bool:
        """Asked between micro-batches: give up this step and stop at the last whole one?"""
        return False

    def finished(self, state: State) -> None:
        """After the last step, also when stopped early."""


def train(
    engine: Engine, source: Source, objective: Objective, hooks: tuple[Hook, ...] = (), *, done: int = 0, tokens: int = 0, seed: int = 0
) -> State:
    """Turn the crank from step `done` + 1 to the source's end.

    Randomness (dropout) is re-seeded from (seed, step) at every step, so a resumed run repeats the uninterrupted one
    without storing any generator's state.
    """
    state = opened(engine, source, hooks, done=done, tokens=tokens)
    steps = source.steps(done + 1) if not state.stop else iter(())
    for step, batches in enumerate(steps, start=done + 1):
        _reseed(seed, step)
        try:
            _one_step(state, step, batches, objective, hooks)
        except Stopped:
            engine.forget()
            state.stop = "asked to stop"
        if state.stop:  # before the source is asked again: it may have to write
            break
    for hook in hooks:
        hook.finished(state)
    return state


def opened(engine: Engine, source: Source, hooks: tuple[Hook, ...], *, done: int, tokens: int) -> State:
    """What is there before the first step, told to the hooks."""
    state = State(engine, done, len(source), tokens=tokens)
    engine.taken = done
    engine.policy.model.train()
    for hook in hooks:
        hook.started(state)
    return state


def _one_step(state: State, step: int, batches: list[Batch], objective: Objective, hooks: tuple[Hook, ...]) -> None:
    started = time.perf_counter()
    state.engine.begin(step, state.total)
    tally = state.engine.forward_backward(batches, objective, should_stop=lambda: any(hook.wants_stop() for hook in hooks))
    move(state, step, batches, tally, hooks, seconds=time.perf_counter() - started)


def move(state: State, step: int, batches: list[Batch], tally: Tally, hooks: tuple[Hook, ...], *, seconds: float) -> None:
    """Clip, ask the hooks, and move the weights by the gradient that is there, which took so many `seconds`."""
    engine, started = state.engine, time.perf_counter()
    norm = engine.gradient_norm(tally)
    rate = rate_at(step, state.total, engine.optim)
    learned = sum(batch.count("token") for batch in batches)
    state.step, state.batches, state.tokens = step, batches, state.tokens + tally.tokens
    state.metrics = tally.means() | {"grad_norm": norm, "learning_rate": rate, "tokens": state.tokens, "learned_tokens": learned}
    if all([hook.accepts(state) for hook in hooks]) and tally.total:
        engine.step(rate, norm)
    else:
        engine.forget()
    engine.taken = step
    state.metrics["seconds"] = seconds + time.perf_counter() - started
    state.metrics["tokens_per_second"] = tally.tokens / state.metrics["seconds"]
    for hook in hooks:
        hook.stepped(state)


def _reseed(seed: int, step: int) -> None:
    torch.manual_seed(random.Random(f"{seed}/{step}").getrandbits(63))
