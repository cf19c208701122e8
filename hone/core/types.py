"""The nouns of the system. Everything else is a function between these.

Shape legend: T tokens of a batch, N reads, S sequences, G groups, C classes.
This file needs torch only for its annotations, so reading data never imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Unit = Literal["token", "sequence", "group"]
"""What an objective's sum is divided by: learned tokens, sequences or groups of the optimiser step."""

Shape = Literal["single", "pair", "label", "steps", "class", "number", "any"]
"""What an objective compares: one conversation, a better and a worse one, one that is wanted or not, one whose steps are
right or wrong, or a text with its class or a number. `any` takes rows as they are."""

Needs = Mapping[str, Mapping[str, Any]]
"""The signals that an objective reads, each with its parameters: {"logp": {}, "divergence": {"beta": 0.5, "temperature": 1.0}}."""


class Origin(NamedTuple):
    """Where an example came from: the file (or hub id) and its row, counted from 1."""

    source: str
    row: int

    def __str__(self) -> str:
        return f"{self.source}:{self.row}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as people write it.

    `weight` overrides the learning policy for this turn: 0 is never learned, 1 always, None leaves it to the policy.
    """

    role: str
    content: str
    weight: float | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    name: str | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The dictionary that chat templates expect; absent fields are left out."""
        fields = {
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": self.reasoning,
            "tool_calls": [dict(call) for call in self.tool_calls] or None,
        }
        return {"role": self.role, "content": self.content} | {k: v for k, v in fields.items() if v is not None}


Conversation = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of data: the conversations that an objective will compare, or raw text.

    SFT has one conversation; a preference has two, chosen first. `columns` keeps what the format did not use.
    """

    conversations: tuple[Conversation, ...] = ()
    text: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = Origin("memory", 0)


Facts: TypeAlias = "dict[str, float | list[float] | Tensor]"
"""What an objective knows of a sequence beside its text: floats for all of it, lists or tensors with an entry for each token."""


@dataclass(slots=True)
class Sequence:
    """Token ids, and how much we want to learn to say each of them (0.0 is context only).

    `facts` are what an objective knows beside the text.
    """

    tokens: list[int]
    weights: list[float]
    facts: Facts = field(default_factory=dict)
    origin: Origin = Origin("memory", 0)

    @property
    def learned(self) -> int:
        """How many tokens are targets. The first token has nothing before it, so it never is."""
        return sum(w != 0 for w in self.weights[1:])


Group = tuple[Sequence, ...]
"""Sequences that an objective compares: 1 for SFT, (chosen, rejected) for pairs, n answers of a prompt for GRPO."""


class Segment(NamedTuple):
    """A stretch of a batch that attends to itself causally and to all its ancestors fully. `parent` is -1 for a root."""

    start: int
    length: int
    parent: int


@dataclass(slots=True)
class Batch:
    """One micro-batch: a forest of segments, and the places where it is read.

    A prefix shared by several sequences is stored, and computed, once. Objectives cannot tell.
    """

    tokens_T: Tensor
    positions_T: Tensor
    segments: tuple[Segment, ...]
    read_N: Tensor
    """Index into T of the hidden state that predicts the target."""
    target_N: Tensor
    weight_N: Tensor
    row_N: Tensor
    """Which sequence the read belongs to."""
    last_S: Tensor
    """Index into T of the last token of each sequence."""
    leaf_S: tuple[int, ...]
    """The segment in which each sequence ends; its ancestors are the rest of the sequence."""
    groups: int
    facts: dict[str, Tensor] = field(default_factory=dict)
    """Per read (N, or N and more) or per sequence (S)."""
    origins: tuple[Origin, ...] = ()
    weight_sum: float = 0.0
    sizes: tuple[int, ...] = ()
    """How many sequences each group has."""
    aside: bool = False
    """Only asked for the statistics of the step, never learned from; it counts nothing."""

    @property
    def sequences(self) -> int:
        return len(self.leaf_S)

    def count(self, unit: Unit) -> float:
        """How many units of the loss's denominator this batch holds."""
        return 0.0 if self.aside else {"token": self.weight_sum, "sequence": float(self.sequences), "group": float(self.groups)}[unit]

    def path(self, leaf: int) -> Tensor:
        """Indices into T of all tokens of the sequence that ends in a segment."""
        import torch

        pieces: list[Tensor] = []
        while leaf >= 0:
            segment = self.segments[leaf]
            pieces.append(torch.arange(segment.start, segment.start + segment.length))
            leaf = segment.parent
        return torch.cat(pieces[::-1])

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, **moved, facts={name: fact.to(device) for name, fact in self.facts.items()})


_TENSORS = ("tokens_T", "positions_T", "read_N", "target_N", "weight_N", "row_N", "last_S")


class StepStat(NamedTuple):
    """A statistic of a whole optimiser step: all its values, and which of them are of the batch at hand."""

    all: Tensor
    here: slice


class _Said:
    """Reads one signal. Where it is missing, the objective did not declare that it needs it."""

    def __init__(self, field: str) -> None:
        self.field = field

    def __get__(self, signals: Signals, owner: type) -> Tensor:
        value: Tensor | None = getattr(signals, self.field)
        assert value is not None, f"the objective did not declare needs='{self.field.rpartition('_')[0]}'"
        return value


@dataclass(slots=True)
class Signals:
    """What the models said at the reads of one batch: only what the objective asked for. The layout never shows.

    A read is the state before its target. Log-probabilities, entropies and divergences are in nats.
    """

    batch: Batch
    logp_N: Tensor | None = None
    """Log-probability of the target."""
    ref_logp_N: Tensor | None = None
    """The same under the reference (the base without what was learned); no gradient."""
    entropy_N: Tensor | None = None
    """Entropy of the next-token distribution."""
    mean_logp_N: Tensor | None = None
    """Mean log-probability over the whole vocabulary."""
    divergence_N: Tensor | None = None
    """How far the next-token distribution is from the teacher's."""
    value_N: Tensor | None = None
    """What the value head expects from here on."""
    score_S: Tensor | None = None
    """What the score head says at the last token of each sequence: (S,), or (S, C) for several classes."""
    step_score_N: Tensor | None = None
    """The same at the reads, where the last token of a step is read: (N,), or (N, C)."""
    step: Mapping[str, StepStat] = field(default_factory=dict)
    """Statistics of the whole optimiser step, for objectives that declare them."""

    logp = _Said("logp_N")
    ref_logp = _Said("ref_logp_N")
    entropy = _Said("entropy_N")
    mean_logp = _Said("mean_logp_N")
    divergence = _Said("divergence_N")
    value = _Said("value_N")
    score = _Said("score_S")
    step_score = _Said("step_score_N")

    @property
    def facts(self) -> Mapping[str, Tensor]:
        """What is known beside the text, per read or per sequence."""
        return self.batch.facts

    def sum(self, x_N: Tensor) -> Tensor:
        """Weighted sum of a per-token quantity inside each sequence, shape (S,)."""
        x_N = x_N * self.batch.weight_N
        return x_N.new_zeros(self.batch.sequences).index_add(0, self.batch.row_N, x_N)

    def mean(self, x_N: Tensor) -> Tensor:
        """Weighted mean inside each sequence, shape (S,)."""
        weight_S = self.sum(x_N.new_ones(x_N.shape))
        return self.sum(x_N) / weight_S.clamp(min=1e-9)


@dataclass(slots=True)
class Loss:
    """A sum over units, never a mean: the loop alone divides, so accumulation is exact. `metrics` are sums too."""

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)
