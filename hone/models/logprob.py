"""Log-probabilities of chosen tokens, in chunks: the only place where logits exist.

For a frozen head the gradient direction of every read is formed in the forward, so logits of more than one chunk never
exist and the backward is one multiplication. A trainable head recomputes its logits in the backward.

Shape legend: N reads, C reads of a chunk, V vocabulary, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hone.models.kernels.cpu import kernel
from hone.tuning.arithmetic import back, times, working

CHUNK_BYTES = 16 << 20
"""Logits of one chunk in fp32: small enough to stay in a large last-level cache."""


@dataclass(frozen=True, slots=True)
class Head:
    """The language-model head: logits = cap(scale * (hidden @ weight.T + bias)) / temperature.

    A frozen weight may have K rows that move: `change_KD` is what they have moved by, `moved_K` whose they are.
    """

    weight_VD: Tensor
    bias_V: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0
    moved_K: Tensor | None = None
    change_KD: Tensor | None = None

    def logits(self, hidden_CD: Tensor) -> Tensor:
        """Logits (C, V) in at least fp32."""
        return self.bend(self.raw(hidden_CD))

    @property
    def dtype(self) -> torch.dtype:
        """The type of its arithmetic."""
        return working(self.weight_VD)

    def raw(self, hidden_CD: Tensor) -> Tensor:
        """The matrix product (C, V), in at least fp32."""
        raw = self.product(hidden_CD.to(self.dtype))
        return raw.to(torch.promote_types(raw.dtype, torch.float32))

    def product(self, hidden_CD: Tensor) -> Tensor:
        """The same in the type of its arithmetic; not differentiable in the rows that move."""
        raw = times(hidden_CD, self.weight_VD, self.bias_V)
        if self.moved_K is not None and self.change_KD is not None:
            raw.index_add_(1, self.moved_K, hidden_CD @ self.change_KD.detach().to(raw.dtype).t())
        return raw

    def back(self, d_raw_CV: Tensor, out_CD: Tensor) -> None:
        """Writes the derivative by the hidden states (C, D), given that by the matrix product."""
        back(d_raw_CV, self.weight_VD, out_CD)
        if self.moved_K is not None and self.change_KD is not None:
            out_CD.addmm_(d_raw_CV[:, self.moved_K], self.change_KD.detach().to(out_CD.dtype))

    def bend(self, raw_CV: Tensor) -> Tensor:
        """From the matrix product to logits: scale, soft cap and temperature."""
        if self.softcap is None:
            factor = self.scale / self.temperature
            return raw_CV if factor == 1.0 else raw_CV * factor
        return self.softcap / self.temperature * torch.tanh(raw_CV * (self.scale / self.softcap))

    def slope(self, logits_CV: Tensor) -> Tensor | float:
        """Derivative of the logits by hidden @ weight.T."""
        factor = self.scale / self.temperature
        return factor if self.softcap is None else factor * (1 - (logits_CV * (self.temperature / self.softcap)) ** 2)

    def only_known(self) -> Head:
        """Without the moving rows that lie beyond the weight."""
        if self.moved_K is None or self.change_KD is None:
            return self
        known_K = self.moved_K < len(self.weight_VD)
        return replace(self, moved_K=self.moved_K[known_K], change_KD=self.change_KD[known_K])

    @property
    def plain(self) -> bool:
        """Nothing but a matrix product."""
        return self.bias_V is None and self.scale == 1.0 and self.softcap is None and self.temperature == 1.0

    def chunk(self) -> int:
        """How many reads fit into one chunk of logits."""
        return max(16, CHUNK_BYTES // (4 * self.weight_VD.shape[0]))


class _Logprob(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, change_KD: Tensor | None, head: Head, target_N: Tensor) -> Tensor:
        needs_hidden, needs_weight, needs_change = ctx.needs_input_grad[:3]
        hidden_ND = hidden_ND.to(head.dtype)
        logp_N = hidden_ND.new_empty(len(hidden_ND), dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
        direction_ND = torch.empty_like(hidden_ND) if (needs_hidden or needs_change) and not needs_weight else None
        moved_NK = hidden_ND.new_empty(len(hidden_ND), len(head.moved_K)) if head.moved_K is not None and needs_change else None
        for rows in chunks(len(hidden_ND), head.chunk()):
            residual_CV = _score(head, hidden_ND[rows], target_N[rows], logp_N[rows], residual=direction_ND is not None)
            if direction_ND is not None:
                head.back(residual_CV, direction_ND[rows])
            if moved_NK is not None and head.moved_K is not None:
                moved_NK[rows] = residual_CV[:, head.moved_K]
        ctx.head, ctx.formed = head, direction_ND is not None
        if moved_NK is None:
            ctx.save_for_backward(hidden_ND if direction_ND is None else direction_ND, weight_VD, target_N)
        else:
            ctx.save_for_backward(direction_ND, weight_VD, target_N, hidden_ND, moved_NK)
        return logp_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> Any:
        saved_ND, weight_VD, target_N, *moved = ctx.saved_tensors
        if ctx.formed:
            grad_N1 = grad_N[:, None].to(saved_ND.dtype)
            d_change = moved_gradient(moved[0], moved[1], grad_N1) if moved else None
            return saved_ND * grad_N1, None, d_change, None, None
        d_hidden_ND = torch.empty_like(saved_ND) if ctx.needs_input_grad[0] else None
        d_weight_VD = torch.zeros_like(weight_VD, dtype=torch.promote_types(weight_VD.dtype, torch.float32))
        for rows in chunks(len(saved_ND), ctx.head.chunk()):
            residual_CV = _score(ctx.head, saved_ND[rows], target_N[rows], grad_N.new_empty(rows.stop - rows.start), residual=True)
            if d_hidden_ND is not None:
                d_hidden_ND[rows] = (residual_CV @ weight_VD.to(residual_CV.dtype)) * grad_N[rows, None].to(residual_CV.dtype)
            weighted_CD = saved_ND[rows] * grad_N[rows, None].to(saved_ND.dtype)
            d_weight_VD += residual_CV.t() @ weighted_CD
        return d_hidden_ND, d_weight_VD.to(weight_VD.dtype), None, None, None


def moved_gradient(hidden_ND: Tensor, d_raw_NK: Tensor, grad_N1: Tensor) -> Tensor:
    """Derivative (K, D), in at least fp32, by the rows of the head that move."""
    found = (d_raw_NK * grad_N1).t() @ hidden_ND
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _score(head: Head, hidden_CD: Tensor, target_C: Tensor, logp_C: Tensor, *, residual: bool) -> Tensor:
    """Writes log p(target); returns d logp / d (hidden @ weight.T), shape (C, V): one-hot minus the probabilities."""
    if head.plain:
        raw_CV = head.product(hidden_CD)
        run = kernel("head", raw_CV)
        if run is not None:
            run(*raw_CV.shape, raw_CV, target_C, logp_C, int(residual))
            return raw_CV
    logits_CV = head.logits(hidden_CD)
    lse_C = torch.logsumexp(logits_CV, -1)
    torch.sub(logits_CV.gather(1, target_C[:, None])[:, 0], lse_C, out=logp_C)
    if not residual:
        return logits_CV
    slope = head.slope(logits_CV)
    residual_CV = logits_CV.sub_(lse_C[:, None]).exp_().neg_()
    residual_CV[torch.arange(len(target_C), device=target_C.device), target_C] += 1
    if isinstance(slope, Tensor) or slope != 1.0:
        residual_CV *= slope
    return residual_CV.to(head.dtype)


def chunks(total: int, size: int) -> list[slice]:
    """Slices of at most `size` that cover `total`."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def token_logprobs(hidden_ND: Tensor, head: Head, target_N: Tensor) -> Tensor:
    """log p(target | hidden) for every read, shape (N,), in at least fp32; differentiable in hidden and the head."""
    assert head.bias_V is None or not head.bias_V.requires_grad, "a trainable head bias is not supported"
    return _Logprob.apply(hidden_ND, head.weight_VD, head.change_KD, head, target_N)
