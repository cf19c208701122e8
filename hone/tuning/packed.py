"""Linear layers whose frozen weight lies in fewer bits: what a tuning method may ask of one, whoever packed it.

Shape legend: T tokens, I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.tuning.arithmetic import back, times, working


class Packed(nn.Linear):
    """A linear layer without a weight matrix: it has `dense()`, which unpacks one, and multiplies by it piece by piece.

    A weight that is unpacked for a product is gone after it; the backward unpacks it again. `original` reads the weight from
    before the packing, where that is still at hand.
    """

    kind: str
    """nf4, fp4 or int8."""

    def __init__(self, outputs: int, inputs: int, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would allocate the matrix
        self.in_features, self.out_features, self.dtype = inputs, outputs, dtype
        self.register_parameter("bias", bias)
        self.original: Callable[[], Tensor] | None = None

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight (O, I), unpacked into a new tensor of the given type (the model's own by default)."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self, self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Codes and scales move with the model, and keep their types whatever the model is cast to."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if isinstance(tensor, nn.Parameter) or new.dtype == tensor.dtype else tensor.to(new.device)

        super()._apply(moved, recurse)
        return self

    def plain(self) -> nn.Linear:
        """An ordinary layer that says the same."""
        made: Any = nn.utils.skip_init(nn.Linear, self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        made.weight = nn.Parameter(self.dense(), requires_grad=False)
        if self.bias is not None:
            made.bias = nn.Parameter(self.bias.detach().clone(), requires_grad=False)
        return made.train(self.training)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, kind={self.kind}"


Held = Tensor | Packed
"""A frozen weight: a matrix (O, I), or the layer that can unpack it."""


def held(layer: nn.Module) -> Held:
    """The weight of a linear layer as (O, I): a view, also for GPT-2's Conv1D, or the packed layer itself."""
    if isinstance(layer, Packed):
        return layer
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.t() if isinstance(layer, Conv1D) else weight


def opened(weight: Held, dtype: torch.dtype) -> Tensor:
    """The matrix (O, I): as it is, or unpacked for the moment."""
    return weight.dense(dtype) if isinstance(weight, Packed) else weight


def like(layer: nn.Module) -> dict[str, Any]:
    """Device and type of a linear layer's arithmetic."""
    if isinstance(layer, Packed):
        return {"device": layer.device, "dtype": layer.dtype}
    weight = next(layer.parameters())
    return {"device": weight.device, "dtype": weight.dtype}


class _Product(torch.autograd.Function):
    """x W' + bias. Nothing is kept for the backward but the frozen weight, which is there anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Held, bias_O: Tensor | None) -> Tensor:
        ctx.weight, wide = weight, working(x)
        y_TO = times(x.reshape(-1, x.shape[-1]).to(wide), opened(weight, wide), bias_O)
        return y_TO.to(x.dtype).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        d_x = None
        if ctx.needs_input_grad[0]:
            grad_TO, weight_OI = grad.reshape(-1, grad.shape[-1]).to(working(grad)), opened(ctx.weight, working(grad))
            d_x = back(grad_TO, weight_OI, grad_TO.new_empty(len(grad_TO), weight_OI.shape[1])).to(grad.dtype)
            d_x = d_x.view(*grad.shape[:-1], -1)
        d_bias = grad.reshape(-1, grad.shape[-1]).sum(0) if ctx.needs_input_grad[2] else None
        return d_x, None, d_bias


def product(x: Tensor, weight: Held, bias_O: Tensor | None = None) -> Tensor:
    """x W' + bias; a frozen weight may be packed, or narrower than the arithmetic."""
    if isinstance(weight, Packed) or (working(x) != x.dtype and not weight.requires_grad):
        out: Tensor = _Product.apply(x, weight, bias_O)
        return out
    return torch.nn.functional.linear(x, weight, bias_O)


def packed_layers(model: nn.Module) -> dict[str, Packed]:
    """Path -> layer of all that is packed."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Packed)}


@torch.no_grad()
def unpack(model: nn.Module) -> int:
    """Put plain layers in the places of packed ones, each unpacked once; returns how many. Folding starts with it."""
    found = packed_layers(model)
    for path, layer in found.items():
        model.set_submodule(path, layer.plain())
    return len(found)
