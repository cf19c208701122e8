"""RMS normalisation (arXiv 1910.07467) in one pass, in the place of a model's own where that computes the same.

Shape legend: R rows, D features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hone.models.kernels.cpu import kernel


class RmsNorm(torch.autograd.Function):
    """y = weight * x / sqrt(mean(x^2) + eps), computed in at least fp32 and rounded once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        run = kernel("rms_forward", x)
        rows, wide = x.numel() // x.shape[-1], torch.promote_types(x.dtype, torch.float32)
        rstd = x.new_empty(*x.shape[:-1], 1, dtype=wide)
        if run is not None:
            y = torch.empty_like(x)
            run(rows, x.shape[-1], x, weight_D, y, rstd, eps)
        else:
            torch.rsqrt(x.to(wide).square().mean(-1, keepdim=True) + eps, out=rstd)
            y = (x.to(wide) * rstd * weight_D.to(wide)).to(x.dtype)
        ctx.save_for_backward(x, weight_D, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight_D, rstd = ctx.saved_tensors
        grad = grad.contiguous()
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = (grad * (x * rstd)).flatten(0, -2).sum(0).to(weight_D.dtype)
        if not ctx.needs_input_grad[0]:
            return None, d_weight, None
        run = kernel("rms_backward", x)
        if run is not None:
            dx = torch.empty_like(x)
            run(x.numel() // x.shape[-1], x.shape[-1], grad, x, weight_D, rstd, dx)
            return dx, d_weight, None
        scaled = grad.to(rstd.dtype) * weight_D.to(rstd.dtype)
        dot = (scaled * x).sum(-1, keepdim=True) * rstd.pow(3) / x.shape[-1]
        return (scaled * rstd - x * dot).to(x.dtype), d_weight, None


class FusedRmsNorm(nn.Module):
    """Takes over the weight of the module that it replaces, so names and checkpoints stay as they were."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = weight, eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        out: Tensor = RmsNorm.apply(hidden_states, self.weight, self.variance_epsilon)
        return out
