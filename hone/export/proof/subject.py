"""A copy of the model under examination, of whatever kind: the few questions that can be put to it.

Shape legend: P positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hone.export.tensors import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is asked of a copy. A copy that only answers over a network is an `Endpoint` instead."""

    kind: str
    """For the report: "merged folder", "GGUF Q8_0" ..."""
    stored: str
    """The type of most weights: float32, bfloat16, float16, or a GGUF type such as Q4_0."""
    logprobs: Callable[[Sequence[int], Sequence[int]], Tensor]
    """Tokens and places to log-probabilities of what follows, (P, V)."""
    encode: Callable[[str, bool], list[int]]
    """A prompt's text to tokens, as the engine that will run this copy does it; True for a conversation, False for plain text."""
    render: Callable[[list[dict[str, Any]], list[dict[str, Any]]], str | None]
    """Messages and tools to the text of a prompt; None where the copy has no template, or it refuses."""
    bos: int | None
    stop_ids: frozenset[int]
    """Where the engine will end an answer."""
    vocabulary_hash: str
    vocabulary: int
    weights: Weights
    embedding: str = "model.embed_tokens.weight"
    examined: bool = True
    """Whether the weights are those that answer: not for methods that cannot be folded into plain ones."""
    base_fingerprint: str = ""
    """For an adapter: the base that it is on now."""
    notes: tuple[str, ...] = ()
