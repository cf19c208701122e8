"""How the next token is chosen: greedily, or drawn from a distribution that temperature, top-k, top-p and min-p have shaped.

Shape legend: B rows, V vocabulary, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from hone.core.config import settings
from hone.models.kernels.peak import peak

CANDIDATES = 256
"""Tokens that are sorted first for top-p; more only where their shares do not reach p."""


@settings
class Sampling:
    """How answers are written."""

    max_new_tokens: Annotated[int, Ge(1)] = 256
    """An answer that has not stopped by then is cut."""
    temperature: Annotated[float, Ge(0)] = 0.0
    """0 takes the likeliest token each time; 1 draws from the model's own distribution."""
    top_p: Annotated[float, Gt(0), Le(1)] = 1.0
    """Draw only from the likeliest tokens that together reach this share (arXiv 1904.09751)."""
    top_k: Annotated[int, Ge(0)] = 0
    """Draw only from this many of the likeliest tokens; 0 is all."""
    min_p: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Draw only from tokens at least this share as likely as the likeliest (arXiv 2407.01082)."""
    stop_strings: tuple[str, ...] = ()
    """An answer ends when one of these has been written."""
    seed: int = 0
    """The n-th prompt draws the same numbers from the same seed, whatever else is in the batch."""

    @property
    def shape(self) -> tuple[float, ...]:
        """What forms the distribution that is drawn from."""
        return self.temperature, self.top_p, self.top_k, self.min_p


def pick(logits_BV: Tensor, how: Sampling, uniforms: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The chosen token of each row (B,), and its log-probability under the model's own distribution (B,).

    `uniforms` are one number from [0, 1) for each row; a greedy choice needs none.
    """
    best = peak(logits_BV)
    if how.temperature == 0:
        return best.token, best.logit - best.total
    shares_BK, order_BK = _candidates((logits_BV / how.temperature).softmax(-1), how)
    place_B = _draw(shares_BK, torch.tensor(uniforms, dtype=torch.float64))
    token_B = place_B if order_BK is None else order_BK.gather(1, place_B[:, None])[:, 0]
    return token_B, logits_BV.gather(1, token_B[:, None])[:, 0] - best.total


def _candidates(shares_BV: Tensor, how: Sampling) -> tuple[Tensor, Tensor | None]:
    """Shares of the tokens that may be drawn (zero for the others), and which tokens they are; None means V in order."""
    kept, order = shares_BV, None
    if how.top_k:
        kept, order = shares_BV.topk(min(how.top_k, shares_BV.shape[1]))
        kept = kept / kept.sum(-1, keepdim=True)
    if how.top_p < 1:
        if order is None:
            kept, order = _enough(shares_BV, how.top_p)
        before = kept.cumsum(-1) - kept
        kept = kept.masked_fill(before >= how.top_p, 0)
    if how.min_p:
        kept = kept.masked_fill(kept < how.min_p * kept.amax(-1, keepdim=True), 0)
    return kept, order


def _enough(shares_BV: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens in order, as many as every row needs to reach a mass."""
    size, count = shares_BV.shape[1], CANDIDATES
    while True:
        found = shares_BV.topk(min(count, size))
        if count >= size or bool((found.values.sum(-1) >= mass).all()):
            return found.values, found.indices
        count *= 8


def _draw(shares_BK: Tensor, uniform_B: Tensor) -> Tensor:
    """Where the running sum passes the uniform number: a place of positive share, in fp64 where the device has it."""
    wide = torch.float32 if shares_BK.device.type == "mps" else torch.float64
    sums_BK = shares_BK.cumsum(-1, dtype=wide)
    goal_B1 = uniform_B.to(sums_BK)[:, None] * sums_BK[:, -1:]
    last_B1 = (sums_BK < sums_BK[:, -1:]).sum(-1, keepdim=True)
    return torch.minimum(torch.searchsorted(sums_BK, goal_B1, right=True), last_B1)[:, 0]
