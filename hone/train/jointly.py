"""Several runs in one loop: the gradients of all come out of the same forwards, everything else is each run's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hone.core.types import Batch, Signals
from hone.data.joining import join
from hone.models.policy import Policy
from hone.models.portions import fill
from hone.objectives.base import Objective
from hone.train.engine import Engine, Stopped, Tally
from hone.train.loop import Hook, Source, State, move, opened
from hone.train.shortage import is_shortage, smaller, within
from hone.tuning.bundle import Spans


@dataclass(slots=True)
class Arm:
    """One of the runs."""

    engine: Engine
    source: Source
    objective: Objective
    hooks: tuple[Hook, ...]
    done: int = 0
    tokens: int = 0


class Piece(NamedTuple):
    """A micro-batch of one arm."""

    arm: int
    batch: Batch


@dataclass(slots=True)
class Joint:
    """A model with the changes of all arms in it, and where it is told whose tokens are whose.

    `budget` is the most tokens of one forward; a micro-batch of an arm is not split for it, only where memory does not suffice.
    """

    policy: Policy
    spans: Spans
    budget: int
    limit: int | None = field(default=None)

    def forward_backward(
        self, todo: Mapping[int, Sequence[Batch]], arms: Sequence[Arm], should_stop: Callable[[], bool]
    ) -> dict[int, Tally]:
        """Add the gradient of one optimiser step of every arm in `todo`; each is divided by its own count.

        Raises Stopped between forwards when asked to, and M091 where not even one group fits into memory.
        """
        while True:
            tallies = {k: Tally(total=sum(batch.count(arms[k].objective.unit) for batch in todo[k])) for k in todo}
            stuck = self._add(todo, arms, tallies, should_stop)
            if not stuck:
                return tallies
            for k in todo:
                arms[k].engine.forget()
            if len(stuck) > 1:
                self.budget = max(1, sum(len(piece.batch.tokens_T) for piece in stuck) // 2)
            else:
                self.limit = smaller(stuck[0].batch, inside_groups=arms[stuck[0].arm].objective.unit != "group")

    def _add(
        self, todo: Mapping[int, Sequence[Batch]], arms: Sequence[Arm], tallies: Mapping[int, Tally], should_stop: Callable[[], bool]
    ) -> Sequence[Piece]:
        """Learn everything, or return the pieces of the forward for which there was too little memory."""
        pieces = [
            Piece(k, batch)
            for k in sorted(todo)
            for batch in within(todo[k], self.limit, inside_groups=arms[k].objective.unit != "group")
            if len(batch.read_N)
        ]
        for some in bunches(pieces, self.budget):
            if should_stop():
                raise Stopped
            try:
                self._learn(some, arms, tallies)
            except (RuntimeError, MemoryError) as error:
                if not is_shortage(error):
                    raise
                return some
        return ()

    def _learn(self, some: Sequence[Piece], arms: Sequence[Arm], tallies: Mapping[int, Tally]) -> None:
        """One forward and backward for the pieces of several arms."""
        started, device = time.perf_counter(), self.policy.device
        self.spans.of = spans_of(some)
        whole = self.policy.signals(join([piece.batch for piece in some]).to(device), arms[some[0].arm].objective.needs)
        losses, reads, rows = [], 0, 0
        for k, batch in some:
            own = Signals(batch.to(device))
            fill(own, whole, slice(reads, reads + len(batch.read_N)), slice(rows, rows + batch.sequences))
            reads, rows = reads + len(batch.read_N), rows + batch.sequences
            loss, tally = arms[k].objective(own), tallies[k]
            losses.append(loss.total / tally.total)
            tally.sums["loss"] += loss.total.item()
            for name, value in loss.metrics.items():
                tally.sums[name] += value.item()
            tally.tokens += len(batch.tokens_T)
        sum(losses[1:], losses[0]).backward()
        spent, tokens = time.perf_counter() - started, sum(len(piece.batch.tokens_T) for piece in some)
        for k, batch in some:
            tallies[k].seconds += spent * len(batch.tokens_T) / tokens


def spans_of(some: Sequence[Piece]) -> dict[int, tuple[int, int]]:
    """Where the tokens of each arm lie in the joined batch; pieces of one arm are neighbours."""
    spans: dict[int, tuple[int, int]] = {}
    at = 0
    for k, batch in some:
        first = spans[k][0] if k in spans else at
        at += len(batch.tokens_T)
        spans[k] = (first, at)
    return spans


def bunches(pieces: Sequence[Piece], budget: int) -> Iterator[list[Piece]]:
    """Neighbours together, up to a budget of tokens; a larger piece alone."""
    held: list[Piece] = []
    for piece in pieces:
        if held and sum(len(one.batch.tokens_T) for one in [*held, piece]) > budget:
            yield held
            held = []
        held.append(piece)
    if held:
        yield held


def train_jointly(arms: Sequence[Arm], joint: Joint, watch: Callable[[Sequence[State]], None] = lambda states: None) -> list[State]:
    """Train all arms to the end of their sources, each step of all in the same forwards. Arms may differ in their number of steps.

    `watch` is called after every round with the states of the arms that took part.
    """
    states = [opened(arm.engine, arm.source, arm.hooks, done=arm.done, tokens=arm.tokens) for arm in arms]
    joint.policy.model.train()
    steps = [arm.source.steps(arm.done + 1) for arm in arms]
    alive = [k for k, state in enumerate(states) if not state.stop]
    while alive:
        given = {k: batches for k in alive if (batches := next(steps[k], None)) is not None}
        if given:
            _round(given, arms, states, joint)
            watch([states[k] for k in given])
        alive = [k for k in given if not states[k].stop]
    for arm, state in zip(arms, states, strict=True):
        for hook in arm.hooks:
            hook.finished(state)
    return states


def _round(given: Mapping[int, list[Batch]], arms: Sequence[Arm], states: Sequence[State], joint: Joint) -> None:
    """One optimiser step of every arm that has one."""
    for k in given:
        arms[k].engine.begin(states[k].step + 1, states[k].total)
    try:
        tallies = joint.forward_backward(given, arms, lambda: any(hook.wants_stop() for k in given for hook in arms[k].hooks))
    except Stopped:
        for k in given:
            arms[k].engine.forget()
            states[k].stop = "asked to stop"
        return
    for k, batches in given.items():
        move(states[k], states[k].step + 1, batches, tallies[k], arms[k].hooks, seconds=tallies[k].seconds)
