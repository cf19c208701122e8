"""The nouns of the system. Everything else is a function between these.

Shape legend: T tokens of a batch, N reads, S sequences, G groups.
This file needs torch only for its annotations, so reading data never imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Unit = Literal["token", "sequence", "group"]
"""What an objective's sum is divided by: learned tokens, sequences or groups of the optimiser step."""


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


@dataclass(slots=True)
class Sequence:
    """Token ids, and how much we want to learn to say each of them (0.0 is context only).

    `facts` are what an objective knows beside the text: floats for the sequence, lists for its tokens.
    """

    tokens: list[int]
    weights: list[float]
    facts: dict[str, float | list[float]] = field(default_factory=dict)
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
    """Per read (N) or per sequence (S)."""
    origins: tuple[Origin, ...] = ()
    weight_sum: float = 0.0

    @property
    def sequences(self) -> int:
        return len(self.leaf_S)

    def count(self, unit: Unit) -> float:
        """How many units of the loss's denominator this batch holds."""
        return {"token": self.weight_sum, "sequence": float(self.sequences), "group": float(self.groups)}[unit]

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, **moved, facts={name: fact.to(device) for name, fact in self.facts.items()})


_TENSORS = ("tokens_T", "positions_T", "read_N", "target_N", "weight_N", "row_N", "last_S")


@dataclass(slots=True)
class Signals:
    """What the models said at the reads of one batch: only what the objective asked for. The layout never shows."""

    batch: Batch
    logp_N: Tensor | None = None
    ref_logp_N: Tensor | None = None
    entropy_N: Tensor | None = None

    @property
    def logp(self) -> Tensor:
        assert self.logp_N is not None, "the objective did not declare needs='logp'"
        return self.logp_N

    @property
    def ref_logp(self) -> Tensor:
        assert self.ref_logp_N is not None, "the objective did not declare needs='ref_logp'"
        return self.ref_logp_N

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
