"""A reward model as the judge: one that `hone train rm` made from preferences."""

from __future__ import annotations

from collections.abc import Sequence

from hone.core.errors import HoneError
from hone.core.types import Message
from hone.rollout.rewards.base import Reward, Tools, Written, kind


@kind
def model(tools: Tools, *, run: str, shift: float = 0.0, scale: float = 1.0) -> Reward:
    """The score that the reward model of a run folder gives to prompt and answer: scale * (score - shift)."""
    if tools.scorer is None:
        raise HoneError("C065", "a reward model can only be used inside a run", where="rollout.rewards.model", fix="pass Tools(scorer=...)")
    score = tools.scorer(run)

    def scores(answers: Sequence[Written]) -> list[float]:
        return [scale * (found - shift) for found in score([(*w.prompt, Message("assistant", w.text)) for w in answers])]

    return scores
