"""Answers on their way from the one who writes to the ones who judge and learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, Protocol

from hone.core.types import Origin, Sequence
from hone.rollout.answer import Answer
from hone.rollout.prompts import Prompt


class Writer(Protocol):
    """Who writes: the sampler on the live weights, or an engine elsewhere that is given them."""

    def generate(self, prompts: Seq[Seq[int]], *, stop_ids: Seq[int] = ..., **sampling: Any) -> list[Answer]:
        """An answer for each prompt of token ids, in order, with the log-probabilities of its tokens."""


@dataclass(slots=True)
class Draft:
    """One answer: what is learned from it, and what is judged."""

    sequence: Sequence
    """Its facts hold `old_logp`, the log-probability of each token when it was written (0 for tokens that others wrote)."""
    text: str
    tokens: int
    stopped: bool
    earned: dict[str, float] = field(default_factory=dict)
    """Rewards by name that came with the writing, from an environment."""


def draft_of(plain: Mapping[str, Any]) -> Draft:
    """A draft from JSON, whose numbers come back to the last bit."""
    return Draft(**{**plain, "sequence": sequence_of(plain["sequence"])})


def sequence_of(plain: Mapping[str, Any]) -> Sequence:
    """A sequence from JSON."""
    return Sequence(plain["tokens"], plain["weights"], plain["facts"], Origin(*plain["origin"]))


Pen = Callable[[Seq[Prompt], int, dict[str, Any]], list[Draft]]
"""(prompts, seed, sampling) -> a draft for each prompt, in order."""


def single_turn(writer: Writer, stop_ids: Seq[int]) -> Pen:
    """Question and answer: all that the model wrote is learned."""

    def write(prompts: Seq[Prompt], seed: int, sampling: dict[str, Any]) -> list[Draft]:
        answers = writer.generate([prompt.ids for prompt in prompts], stop_ids=stop_ids, seed=seed, **sampling)
        return [_draft(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    return write


def _draft(prompt: Prompt, answer: Answer) -> Draft:
    before = len(prompt.ids)
    sequence = Sequence(
        [*prompt.ids, *answer.tokens],
        [0.0] * before + [1.0] * len(answer.tokens),
        {"old_logp": [0.0] * before + answer.logps},
        prompt.origin,
    )
    return Draft(sequence, answer.text, len(answer.tokens), answer.stop_reason == "stop")
