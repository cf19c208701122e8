"""Numbers of the whole next-token distribution at each read, chunk by chunk: entropies, mean log-probabilities, divergences.

Any differentiable function of one read's logits will do. As in `logprob`, a frozen head has its gradient formed in the forward,
so logits of more than one chunk never exist; a trainable head recomputes them in the backward.

Shape legend: N reads, C reads of a chunk, V vocabulary, D hidden size, K functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hone.models.logprob import Head, chunks, moved_gradient

Reading = Callable[[Tensor, slice], Tensor]
"""From the logits (C, V) of some reads, and which reads they are, to one number for each (C,). No read sees another."""


def per_read(hidden_ND: Tensor, head: Head, readings: Sequence[Reading]) -> tuple[Tensor, ...]:
    """Every reading at every read, K tensors (N,) in at least fp32; differentiable in the hidden states and the head."""
    assert head.bias_V is None or not head.bias_V.requires_grad, "a trainable head bias is not supported"
    return _PerRead.apply(hidden_ND, head.weight_VD, head.change_KD, head, readings) if readings else ()


def entropy(logits_CV: Tensor, rows: slice) -> Tensor:
    """Entropy of the next-token distribution, in nats."""
    logp_CV = torch.log_softmax(logits_CV, -1)
    return -(logp_CV.exp() * logp_CV).sum(-1)


def mean_logp(logits_CV: Tensor, rows: slice) -> Tensor:
    """Mean log-probability over the vocabulary, in nats."""
    return torch.log_softmax(logits_CV, -1).mean(-1)


def _note(head: Head, d_raw_CV: Tensor, direction_CD: Tensor, moved_CK: Tensor | None) -> None:
    """Write down what the backward needs of a chunk: the derivative by the hidden states, and by the logits of rows that move."""
    head.back(d_raw_CV, direction_CD)
    if moved_CK is not None and head.moved_K is not None:
        moved_CK.copy_(d_raw_CV[:, head.moved_K])


class _PerRead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, change_KD: Tensor | None, head: Head, readings: Sequence[Reading]
    ) -> tuple[Tensor, ...]:
        needs_hidden, needs_weight, needs_change = ctx.needs_input_grad[:3]
        hidden_ND = hidden_ND.to(head.dtype)
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        out = tuple(hidden_ND.new_empty(len(hidden_ND), dtype=wide) for _ in readings)
        form = (needs_hidden or needs_change) and not needs_weight
        direction = hidden_ND.new_empty(len(readings), *hidden_ND.shape) if form else None
        moved = [hidden_ND.new_empty(len(hidden_ND), len(head.moved_K)) for _ in readings] if head.moved_K is not None and form else []
        for rows in chunks(len(hidden_ND), head.chunk()):
            raw_CV = head.raw(hidden_ND[rows]).detach().requires_grad_(form)
            with torch.set_grad_enabled(form):
                values = [reading(head.bend(raw_CV), rows) for reading in readings]
            for k, value_C in enumerate(values):
                out[k][rows] = value_C.detach()
            for k, value_C in enumerate(values):
                if direction is None:
                    break
                (d_raw_CV,) = torch.autograd.grad(value_C, raw_CV, torch.ones_like(value_C))
                _note(head, d_raw_CV.to(head.dtype), direction[k, rows], moved[k][rows] if moved else None)
        ctx.head, ctx.readings, ctx.formed = head, readings, form
        ctx.save_for_backward(hidden_ND if direction is None else direction, weight_VD, *([hidden_ND, *moved] if moved else []))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saved, weight_VD, *moved = ctx.saved_tensors
        if ctx.formed:
            columns = [grad[:, None].to(saved.dtype) for grad in grads]
            d_hidden_ND = sum(way * column for way, column in zip(saved, columns, strict=True))
            d_changes = [moved_gradient(moved[0], part, column) for part, column in zip(moved[1:], columns, strict=bool(moved))]
            return d_hidden_ND, None, sum(d_changes) if d_changes else None, None, None
        d_hidden_ND = torch.empty_like(saved)
        d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.promote_types(weight_VD.dtype, torch.float32))
        for rows in chunks(len(saved), ctx.head.chunk()):
            raw_CV = ctx.head.raw(saved[rows]).detach().requires_grad_()
            with torch.enable_grad():
                logits_CV = ctx.head.bend(raw_CV)
                total = sum((reading(logits_CV, rows) * grad[rows]).sum() for reading, grad in zip(ctx.readings, grads, strict=True))
            (d_raw_CV,) = torch.autograd.grad(total, raw_CV)
            d_raw_CV = d_raw_CV.to(ctx.head.dtype)
            d_hidden_ND[rows] = d_raw_CV @ weight_VD.to(d_raw_CV.dtype)
            d_weight_VD += d_raw_CV.t() @ saved[rows]
        return d_hidden_ND, d_weight_VD.to(weight_VD.dtype), None, None, None
