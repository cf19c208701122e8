"""A reward model as a judge: what its score head says of conversations.

Shape legend: S sequences, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.types import Group
from hone.data.batching import consecutive
from hone.models.policy import Policy, evaluating


@torch.no_grad()
def scores(policy: Policy, groups: Iterable[Group], *, budget: int = 4096) -> Tensor:
    """The score of every sequence at its last token, in order: (S,), or (S, C) for a head with several classes; on the CPU.

    Answers to one prompt may come as one group: the prompt is then computed once. Raises C054 for a model without a score head.
    """
    if "score" not in policy.heads:
        raise HoneError("C054", "this model gives no scores", fix="train a reward model: hone train rm model=... data=...")
    with evaluating(policy.model):
        found = [policy.signals(batch.to(policy.device), "score").score.float().cpu() for batch in consecutive(groups, budget)]
    return torch.cat(found) if found else torch.zeros(0)
