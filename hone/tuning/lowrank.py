"""Low-rank changes beside frozen layers: the fused function, and the modules that hold A and B.

Shape legend: T tokens, I input features, O output features, R rank, V vocabulary, D hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.tuning.arithmetic import back, times, working
from hone.tuning.base import Beside
from hone.tuning.packed import Held, Packed, held, like, opened
from hone.tuning.shapes import bias_of
from hone.tuning.starts import Start

Pair = tuple[Tensor, Tensor]
"""A (R, I) and B (O, R) of one layer; the change of its weight is scale * B A."""


class LowRank(torch.autograd.Function):
    """y = x W' + bias + scale (x A') B' with a frozen W: two skinny products more than the plain layer, no copies.

    A packed W is unpacked for each of the two products with it, and never kept. Its plain twin is the expression above under
    autograd; a test holds them together.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Held, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
        x_TI, wide = x.reshape(-1, x.shape[-1]), working(x)
        x_ = x_TI.to(wide)
        down_TR = x_ @ a_RI.to(wide).t()
        y_TO = times(x_, opened(weight, wide), bias_O)
        y_TO.addmm_(down_TR, b_OR.to(wide).t(), alpha=scale)
        ctx.packed, ctx.scale = (weight, scale) if isinstance(weight, Packed) else (None, scale)
        ctx.save_for_backward(x_TI, a_RI, b_OR, down_TR, *(() if isinstance(weight, Packed) else (weight,)))
        return y_TO.to(x.dtype).view(*x.shape[:-1], y_TO.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x_TI, a_RI, b_OR, down_TR, *kept = ctx.saved_tensors
        wide = working(grad)
        grad_TO = grad.reshape(-1, grad.shape[-1]).to(wide)
        d_down_TR = (grad_TO @ b_OR.to(wide)).mul_(ctx.scale)
        d_b = (grad_TO.t() @ down_TR).to(b_OR.dtype).mul_(ctx.scale)
        d_a = (d_down_TR.t() @ x_TI.to(wide)).to(a_RI.dtype)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = back(grad_TO, opened(kept[0] if kept else ctx.packed, wide), grad_TO.new_empty(x_TI.shape))
            d_x = d_x.addmm_(d_down_TR, a_RI.to(wide)).to(grad.dtype).view(*grad.shape[:-1], a_RI.shape[1])
        return d_x, None, None, d_a, d_b, None


class Part(Beside):
    """A frozen module and its low-rank change. `a` (R, I) and `b` (O, R) are fp32 masters, cast where used.

    With a start that is subtracted, `minus_a` and `minus_b` are its frozen copies.
    """

    minus_a: Tensor | None
    minus_b: Tensor | None

    def __init__(self, base: nn.Module, start: Start, *, scale: float) -> None:
        super().__init__(base)
        self.scale = scale
        self.a, self.b = nn.Parameter(start.a_RI), nn.Parameter(start.b_OR)
        for name, half in (("minus_a", start.a_RI), ("minus_b", start.b_OR)):
            self.register_buffer(name, half.clone() if start.minus else None, persistent=False)

    def pair(self) -> Pair:
        """A and B of the whole change, whose rank is twice as large where a start is subtracted."""
        if self.minus_a is None or self.minus_b is None:
            return self.a, self.b
        return torch.cat((self.a, self.minus_a)), torch.cat((self.b, -self.minus_b), 1)

    def fill(self, pair: Pair, *, whole: bool = True) -> None:
        """Take over the matrices of a change; `whole` says that the subtracted start is among them."""
        rank = self.a.shape[0]
        self.a.copy_(pair[0][:rank])
        self.b.copy_(pair[1][:, :rank])
        if whole and self.minus_a is not None and self.minus_b is not None:
            self.minus_a.copy_(pair[0][rank:])
            self.minus_b.copy_(-pair[1][:, rank:])

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs) of the change."""
        return self.b.shape[0], self.a.shape[1]


class LoraLinear(Part):
    """A frozen linear layer and its low-rank change."""

    def __init__(self, base: nn.Module, start: Start, *, scale: float, dropout: float = 0.0) -> None:
        super().__init__(base, start, scale=scale)
        self.dropout = nn.Dropout(dropout)
        if start.rounded_OI is not None and not isinstance(base, Packed):
            weight_of(base).data.copy_(start.rounded_OI)

    def forward(self, x: Tensor) -> Any:
        if not self.active:
            return self.base(x)
        a, b = self.pair()
        if self.simple(x) and not self.drops:
            return LowRank.apply(x, held(self.base), bias_of(self.base), a, b, self.scale)
        down = self.dropout(x) @ a.to(x.dtype).t()
        return self.base(x) + self.scale * (down @ b.to(x.dtype).t())

    @property
    def drops(self) -> bool:
        return self.training and self.dropout.p > 0

    def simple(self, x: Tensor) -> bool:
        """Whether the base is a frozen matrix of the input's type, or unpacks into one."""
        if isinstance(self.base, Packed):
            return True
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return type(self.base) in (nn.Linear, Conv1D) and not weight.requires_grad and x.dtype == weight.dtype

    def delta(self) -> Tensor:
        """The change of the weight (O, I), in fp32."""
        a, b = self.pair()
        return self.scale * (b @ a)

    def merged(self) -> nn.Module:
        """The base with the change folded in, added in fp32 and rounded once."""
        weight_OI = weight_of(self.base)
        weight_OI.copy_((weight_OI.to(self.a.dtype) + self.delta()).to(weight_OI.dtype))
        return self.base


class LoraEmbedding(Part):
    """A frozen embedding and its low-rank change: A (R, V) starts at zero, B (D, R) at random."""

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.base(ids)
        if not self.active:
            return found
        down = torch.nn.functional.embedding(ids, self.a.t())
        return found + (self.scale * (down @ self.b.t())).to(found.dtype)

    @property
    def weight(self) -> Tensor:
        """The base's table, for those who look at it."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    def merged(self) -> nn.Module:
        """A table of its own: a head that shared the base's keeps that."""
        base: Any = self.base
        table = self.weight.to(self.a.dtype) + self.scale * (self.b @ self.a).t()
        made: Any = nn.Embedding.from_pretrained(table.to(self.weight.dtype), padding_idx=base.padding_idx)
        assert isinstance(made, nn.Module)
        return made


def weight_of(layer: nn.Module) -> Tensor:
    """The weight as (outputs, inputs): a view that can be written into. A packed layer has none: it is unpacked first."""
    weight = held(layer)
    assert isinstance(weight, Tensor), "a packed weight cannot be written into"
    return weight


def dense_weight(layer: nn.Module) -> Tensor:
    """The same, for reading; a packed one is unpacked once, in at least fp32."""
    return opened(held(layer), torch.promote_types(like(layer)["dtype"], torch.float32)).detach()


def embedding_start(rank: int, table_VD: Tensor, generator: torch.Generator) -> Start:
    """A is zero and B normal, as the reference implementation."""
    dtype = torch.promote_types(table_VD.dtype, torch.float32)
    b_DR = torch.empty(table_VD.shape[1], rank).normal_(generator=generator)
    return Start(torch.zeros(rank, table_VD.shape[0], dtype=dtype, device=table_VD.device), b_DR.to(table_VD.device, dtype))
