"""What a greedy choice needs of logits, in one pass: the likeliest token, its logit, and the logarithm of the sum of exponentials.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hone.models.kernels.cpu import kernel


class Peak(NamedTuple):
    """Of every row, (B,) each."""

    token: Tensor
    logit: Tensor
    total: Tensor
    """The logarithm of the sum of exponentials; not a number where a logit is none."""


def peak(logits_BV: Tensor) -> Peak:
    """The peaks of rows of logits. The first of equal ones counts."""
    logits_BV = logits_BV.contiguous()
    run = kernel("peak", logits_BV)
    if run is None:
        best = logits_BV.max(-1)
        return Peak(best.indices, best.values, logits_BV.logsumexp(-1))
    rows = len(logits_BV)
    token_B, wide_2B = torch.empty(rows, dtype=torch.long), torch.empty(2, rows)
    run(rows, logits_BV.shape[1], logits_BV, token_B, wide_2B[0], wide_2B[1])
    return Peak(token_B, wide_2B[0], wide_2B[1])
