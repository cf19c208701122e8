"""Attention over short stretches on the CPU as batched matrix products, several times faster than the stock kernel there.

The stock flash kernel of the CPU is made for long rows: on 128 tokens its backward takes seven times as long as these
few products (bf16, two cores). Scores exist for one slice of heads at a time, small enough to stay in the cache, and
are formed again in the backward. The twin is the stock flash kernel in `attention.py`; a test holds them together.

Shape legend: B segments, H query heads, K key heads, L queries, M keys, D head size, S heads of a slice.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from hone.models.kernels.cpu import kernel

LONGEST = {torch.bfloat16: 512}
"""Longer rows are left to the flash kernel, whose work does not grow with the upper triangle."""
OTHERS = 48
"""The same for types whose matrix products are slower."""
SLICE = 1 << 19
"""Scores held at a time."""


def suits(q: Tensor, k: Tensor) -> bool:
    """Whether these products are faster than the stock kernel for such queries and keys."""
    return q.device.type == "cpu" and max(q.shape[2], k.shape[2]) <= LONGEST.get(q.dtype, OTHERS)


def forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """q (B, H, L, D), k and v (B, K, M, D) to values (B, H, L, D) and log-sum-exp (B, H, L); H is a multiple of K."""
    wide = torch.promote_types(q.dtype, torch.float32)
    lse = q.new_empty(q.shape[:3], dtype=wide)
    q_, k_, v_, lse_ = _fold(q, k), k.flatten(0, 1), v.flatten(0, 1), lse.view(-1, _rows(q, k))
    out_ = torch.empty_like(q_)
    for at in _slices(q_, k_):
        scores = torch.bmm(q_[at], k_[at].mT)
        _shares(scores, lse_[at], q.shape[2] if causal else 0, scale)
        torch.bmm(scores, v_[at], out=out_[at])
    return out_.view(q.shape), lse


def backward(
    grad: Tensor, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q (B, H, L, D), k and v (B, K, M, D), given the values and log-sum-exp over *all* keys of a query."""
    q, k, v = qkv
    delta = torch.linalg.vecdot(grad.to(lse.dtype), out.to(lse.dtype))
    q_, k_, v_, grad_ = _fold(q, k), k.flatten(0, 1), v.flatten(0, 1), _fold(grad, k)
    dq_, dk_, dv_ = torch.empty_like(q_), torch.empty_like(k_), torch.empty_like(v_)
    lse_, delta_ = (x.reshape(-1, _rows(q, k)).contiguous() for x in (lse, delta))
    for at in _slices(q_, k_):
        shares, d_scores = torch.bmm(q_[at], k_[at].mT), torch.bmm(grad_[at], v_[at].mT)
        _shares_backward((shares, d_scores), lse_[at], delta_[at], q.shape[2] if causal else 0, scale)
        torch.bmm(shares.mT, grad_[at], out=dv_[at])
        torch.bmm(d_scores, k_[at], out=dq_[at])
        torch.bmm(d_scores.mT, q_[at], out=dk_[at])
    return dq_.view(q.shape), dk_.view(k.shape), dv_.view(v.shape)


def _shares(scores: Tensor, lse: Tensor, period: int, scale: float) -> None:
    """Raw scores (S, L, M) to attention shares in place, and their log-sum-exp. Row i sees i % period + 1 keys, or all."""
    run = kernel("shares", scores)
    if run is not None:
        return run(lse.numel(), scores.shape[-1], period, scores, lse, scale)
    wide = scores.to(lse.dtype) * scale
    if period:
        wide += _mask(scores, period)
    torch.logsumexp(wide, -1, out=lse)
    scores.copy_(wide.sub_(lse[..., None]).exp_())


def _shares_backward(pair: tuple[Tensor, Tensor], lse: Tensor, delta: Tensor, period: int, scale: float) -> None:
    """Raw scores to shares, and the gradient of the shares to that of the raw scores, both in place."""
    scores, grad = pair
    run = kernel("shares_backward", scores)
    if run is not None:
        return run(lse.numel(), scores.shape[-1], period, scores, grad, lse, delta, scale)
    wide = scores.to(lse.dtype) * scale
    if period:
        wide += _mask(scores, period)
    shares = wide.sub_(lse[..., None]).exp_()
    scores.copy_(shares)
    grad.copy_((grad.to(lse.dtype) - delta[..., None]) * shares * scale)


def _mask(scores: Tensor, period: int) -> Tensor:
    """(L, M) of zeros and -inf: row i sees keys up to i % period."""
    row = torch.arange(scores.shape[-2], device=scores.device) % period
    hidden = torch.arange(scores.shape[-1], device=scores.device)[None] > row[:, None]
    return torch.zeros(hidden.shape, device=scores.device).masked_fill_(hidden, float("-inf"))


def _rows(q: Tensor, k: Tensor) -> int:
    """Queries that one key head serves."""
    return q.shape[2] * (q.shape[1] // k.shape[1])


def _fold(x: Tensor, k: Tensor) -> Tensor:
    """(B, H, L, D) to (B K, L H/K, D): query heads that share a key head become further rows of it, so no key is copied."""
    return x.reshape(x.shape[0] * k.shape[1], _rows(x, k), x.shape[3])


def _slices(q: Tensor, k: Tensor) -> Iterator[slice]:
    size = max(1, SLICE // (q.shape[1] * k.shape[1]))
    return (slice(start, start + size) for start in range(0, len(q), size))
