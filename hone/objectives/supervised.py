"""Objectives that imitate given tokens."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, Lt

from hone.core.types import Loss, Signals
from hone.objectives.base import objective


def _imitation(*, label_smoothing: float) -> str:
    return "logp mean_logp" if label_smoothing else "logp"


@objective(needs=_imitation, unit="token")
def sft(s: Signals, *, focus: Annotated[float, Ge(0), Le(1)] = 0.0, label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0) -> Loss:
    """Supervised fine-tuning: weighted negative log-likelihood per learned token, in nats.

    `focus` scales each token's loss by its own detached probability to this power: 0 is plain SFT, 1 is dynamic
    fine-tuning (DFT, arXiv 2508.05629). `label_smoothing` wants this share of the probability spread evenly over the
    vocabulary (arXiv 1512.00567).
    """
    loss_N = -s.logp if focus == 0 else -s.logp * (focus * s.logp.detach()).exp()
    if label_smoothing:
        loss_N = (1 - label_smoothing) * loss_N - label_smoothing * s.mean_logp
    return Loss(s.sum(loss_N).sum(), {"nll": s.sum(-s.logp.detach()).sum()})


@objective(needs="logp", unit="token")
def cpt(s: Signals) -> Loss:
    """Continued pre-training: negative log-likelihood of every token of packed documents, in nats."""
    return Loss(-s.sum(s.logp).sum())
