"""Objectives that learn from a teacher's next-token distributions, per learned token and in nats.

The teacher is asked on the spot, or once and kept on disk; the loss is the same. Learning from its texts instead is sft on them
(sequence-level distillation, arXiv 1606.07947).
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from hone.core.types import Loss, Needs, Signals
from hone.objectives.base import objective

Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]


def _teacher(*, beta: float, temperature: float, top_k: int | None, imitation: float) -> Needs:
    said: Needs = {"divergence": {"beta": beta, "temperature": temperature, "top_k": top_k}}
    return {**said, "logp": {}} if imitation else said


@objective(needs=_teacher, unit="token")
def distill(s: Signals, *, beta: Share = 0.0, temperature: Positive = 1.0, top_k: Count | None = None, imitation: Share = 0.0) -> Loss:
    """Distillation: match a teacher's distribution of each next token (generalised knowledge distillation, arXiv 2306.13649).

    `beta` 0 is forward KL (covers all that the teacher does), 1 is reverse KL (keeps to what it is sure of), between them the
    generalised Jensen-Shannon divergence. `temperature` softens both distributions. `top_k` keeps the teacher's likeliest tokens
    and takes all others as one; none is the whole vocabulary. `imitation` is the share of plain sft on the data.
    """
    total = match = s.sum(s.divergence).sum()
    if imitation:
        total = (1 - imitation) * match - imitation * s.sum(s.logp).sum()
    return Loss(total, {"divergence": match.detach()})


def _foreign_teacher() -> Needs:
    return {"logp": {}, "divergence": {"by_rank": True}}


@objective(needs=_foreign_teacher, unit="token")
def uld(s: Signals, *, weight: Annotated[float, Ge(0)] = 1.5) -> Loss:
    """Distillation from a teacher with other tokens: sft, and `weight` times the distance of the sorted probabilities at each token
    (universal logit distillation, arXiv 2402.12030).
    """
    distance = s.sum(s.divergence).sum()
    return Loss(-s.sum(s.logp).sum() + weight * distance, {"divergence": distance.detach()})
