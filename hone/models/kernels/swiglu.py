"""The gated unit of Llama-like models, silu(gate) * up, in one pass each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hone.models.kernels.cpu import kernel


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up. Only its two inputs are kept for the backward."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        run = kernel("swiglu_forward", gate)
        if run is None:
            return torch.nn.functional.silu(gate) * up
        y = torch.empty_like(gate)
        run(gate.numel(), gate, up, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        grad = grad.contiguous()
        run = kernel("swiglu_backward", gate)
        if run is not None:
            d_gate, d_up = torch.empty_like(gate), torch.empty_like(up)
            run(gate.numel(), grad, gate, up, d_gate, d_up)
            return d_gate, d_up
        s = torch.sigmoid(gate)
        return grad * up * s * (1 + gate * (1 - s)), grad * gate * s


class FusedGatedMlp(nn.Module):
    """down(silu(gate(x)) * up(x)) over the projections of the module that it replaces."""

    def __init__(self, gate_proj: nn.Module, up_proj: nn.Module, down_proj: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = gate_proj, up_proj, down_proj

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(SwiGlu.apply(self.gate_proj(x), self.up_proj(x)))
        return out
