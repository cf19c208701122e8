"""How far two next-token distributions are from each other: Kullback-Leibler both ways, and all between.

Shape legend: C reads, V vocabulary, K the teacher's likeliest tokens (and, last, all others as one).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SURE = -1e-7
"""Log-probability of the K likeliest tokens beyond which the rest counts as this little, so that its logarithm stays finite."""


def jsd(student_CV: Tensor, teacher_CV: Tensor, beta: float) -> Tensor:
    """Generalised Jensen-Shannon divergence of log-probabilities, shape (C,), in nats (arXiv 2306.13649).

    `beta` 0 is KL(teacher || student), the forward KL that imitates all the teacher does; 1 is KL(student || teacher), the
    reverse KL that keeps to what the teacher is sure of. Between, with M = beta teacher + (1 - beta) student, it is
    beta KL(teacher || M) + (1 - beta) KL(student || M), which divided by beta or by 1 - beta tends to these limits.
    """
    if beta == 0.0:
        return _kl(teacher_CV, student_CV)
    if beta == 1.0:
        return _kl(student_CV, teacher_CV)
    mixture_CV = torch.logaddexp(teacher_CV + math.log(beta), student_CV + math.log1p(-beta))
    return beta * _kl(teacher_CV, mixture_CV) + (1 - beta) * _kl(student_CV, mixture_CV)


def _kl(p_CV: Tensor, q_CV: Tensor) -> Tensor:
    p = p_CV.exp()
    return torch.where(p > 0, p * (p_CV - q_CV), 0.0).sum(-1)


def folded(logp_CV: Tensor, ids_CK: Tensor) -> Tensor:
    """The distribution over some tokens, and over all others as one more, shape (C, K + 1); log-probabilities."""
    return with_rest(logp_CV.gather(1, ids_CK))


def with_rest(logp_CK: Tensor) -> Tensor:
    """Log-probabilities of some tokens, and of all others together as the last column."""
    known_C = torch.logsumexp(logp_CK, -1).clamp(max=SURE)
    return torch.cat([logp_CK, torch.log(-torch.expm1(known_C))[:, None]], -1)


def sorted_distance(student_CV: Tensor, teacher_CK: Tensor) -> Tensor:
    """Distance of two distributions whose tokens are not the same: of the sorted probabilities, one by one (C,) (arXiv 2402.12030).

    The shorter is filled with zeros. Half of the sum of absolute differences, so between 0 and 1.
    """
    mine, theirs = student_CV.exp().sort(-1, descending=True).values, teacher_CK.exp().sort(-1, descending=True).values
    short = mine.shape[-1] - theirs.shape[-1]
    pad = torch.nn.functional.pad
    mine, theirs = (mine, pad(theirs, (0, short))) if short > 0 else (pad(mine, (0, -short)), theirs)
    return 0.5 * (mine - theirs).abs().sum(-1)
