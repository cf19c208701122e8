"""A run in small, as the parts that it is composed of. Proofs ask the parts; in a bug one of them is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from hone.core.types import Batch, Conversation, Group
from hone.core.world import World
from hone.models.policy import Policy
from hone.objectives import Objective
from hone.tuning import Tuning


class Optim(Protocol):
    """How weights move: the numbers of `optim` in a run file."""

    @property
    def learning_rate(self) -> float | None: ...
    @property
    def embedding_learning_rate(self) -> float | None: ...
    @property
    def schedule(self) -> str: ...
    @property
    def warmup_ratio(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...


class Engine(Protocol):
    """What turns batches into moved weights; `hone.train.engine.Engine` is one."""

    policy: Policy
    names: list[str]

    @property
    def masters(self) -> Any: ...
    def begin(self, step: int, total: int) -> None: ...
    def forward_backward(self, batches: Sequence[Batch], objective: Objective) -> Any: ...
    def gradient_norm(self, tally: Any) -> float: ...
    def forget(self) -> None: ...
    def save(self) -> dict[str, Tensor]: ...
    def load(self, tensors: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the user's data: what it says, the tokens that were made of it, and how many of them the ledger says are learned."""

    group: Group
    said: tuple[Conversation, ...] = ()
    """The conversation of each sequence; empty where the row is raw text, or a label is learned instead of an answer."""
    tools: tuple[Mapping[str, Any], ...] = ()
    fate: int | None = None


class Judged(NamedTuple):
    """An answer that the model wrote: its reward, and how much likelier it finds each token than the reference does, in nats."""

    reward: float
    log_ratios: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """How conversations become tokens, and back."""

    decode: Callable[[Sequence[int]], str]
    learn: str
    """assistant, last or all, as `data.learn`."""
    end: str
    """The end marker of an answer."""
    stops: frozenset[int]
    """The tokens at which whoever serves the model ends an answer."""
    serve: Callable[[Conversation, Sequence[Mapping[str, Any]]], list[int]]
    """The tokens that a server makes of the messages before an answer: from the saved tokenizer, without hone."""
    bos: int | None
    controls: tuple[str, ...] = ()
    """Control tokens by their text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is proved about. Everything is a value or a function, so a single part can be replaced."""

    rows: Sequence[Row]
    """Whole rows, for proofs that need no model."""
    groups: Sequence[Group]
    """A few of them, cut to a size that can be computed in no time."""
    texts: Texts
    objective: Objective
    tuning: Tuning
    optim: Optim
    total: int
    """Optimiser steps of the whole run in small; the schedules of learning rate and method stretch over them."""
    seed: int
    base: Callable[[], nn.Module]
    """The base as transformers builds it, untouched: each call a new one with the same weights."""
    policy: Callable[[], Policy]
    """The base with its tuning attached, at the start of the run: each call a new one, the same to the last bit."""
    batches: Callable[[Sequence[Group], int, bool], list[Batch]]
    """(groups, budget of tokens, share common beginnings) -> the micro-batches of one step."""
    plan: Callable[[int], list[Batch]]
    """The micro-batches of a step of the run in small, counted from 1."""
    engine: Callable[[Policy, World], Engine]
    train: Callable[[Engine, int, int], None]
    """(engine, steps already done, step to stop after): the run's own loop."""
    measure: Callable[[Policy, Sequence[Group]], float]
    """The held-out loss, as it is measured during training."""
    save: Callable[[Policy, Path], None]
    """Write the artifact."""
    open: Callable[[Path], Policy]
    """Read an artifact as one who has only its folder and the base."""
    checkpoint: Callable[[Engine, int, Path], None]
    resume: Callable[[Engine, Path], int]
    """Load the newest checkpoint of a folder; returns its step."""
    write: Callable[[Policy, Sequence[Sequence[int]], int], list[tuple[list[int], list[float]]]]
    """Greedy answers of so many tokens to prompts, with the log-probability of each token."""
    credit: Callable[[Sequence[Sequence[Judged]]], list[list[float]]] | None = None
    """Where the model writes what it learns from: judged answers, group by group, to their mean advantages."""
    per_group: bool = True
    """Credit is meant to look at each group by itself."""
    leash: float = 0.0
    """How much credit punishes for leaving the reference."""
