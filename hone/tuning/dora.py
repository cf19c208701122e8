"""Weight-decomposed low-rank adaptation (arXiv 2402.09353): LoRA turns each row of a weight, a magnitude sets its length.

Shape legend: T tokens, I input features, O output features, R rank.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from hone.core.config import settings
from hone.tuning import peft_io
from hone.tuning.base import METHODS, About
from hone.tuning.lora import Lora
from hone.tuning.lowrank import LoraLinear, LowRank, dense_weight, weight_of
from hone.tuning.packed import held, like, product
from hone.tuning.shapes import Shapes, bias_of
from hone.tuning.starts import Start


class DoraLinear(LoraLinear):
    """y = m / |W + BA| * (W + BA) x + bias, by rows; the length takes no gradient, as in the paper's section 4.3.

    The length of a row follows from |W|, W A' and A A', so the changed weight itself is never formed.
    """

    def __init__(self, base: nn.Module, start: Start, *, scale: float, dropout: float = 0.0) -> None:
        super().__init__(base, start, scale=scale, dropout=dropout)
        square_O = dense_weight(base).to(self.a.dtype).square().sum(1)
        self.register_buffer("square", square_O, persistent=False)
        self._known: tuple[tuple[int, int], Tensor] | None = None
        self.magnitude = nn.Parameter(self.length().clone())

    def forward(self, x: Tensor) -> Any:
        if not self.active:
            return self.base(x)
        weight, bias_O = held(self.base), bias_of(self.base)
        turn_O = (self.magnitude / self.length()).to(x.dtype)
        a, b = self.pair()
        if self.drops:
            dropped = self.dropout(x)
            low = self.scale * (dropped @ a.to(x.dtype).t()) @ b.to(x.dtype).t()
            return self.base(x) + (turn_O - 1) * product(dropped, weight) + turn_O * low
        if self.simple(x):
            y = LowRank.apply(x, weight, None, a, b, self.scale) * turn_O
        else:
            y = (product(x, weight) + self.scale * (x @ a.to(x.dtype).t()) @ b.to(x.dtype).t()) * turn_O
        return y if bias_O is None else y + bias_O

    @torch.no_grad()
    def length(self) -> Tensor:
        """Length (O,) of each row of the changed weight; kept while an answer is being written."""
        version = (self.a._version, self.b._version)
        writing = torch.is_inference_mode_enabled() and not self.training
        if writing and self._known is not None and self._known[0] == version:
            return self._known[1]
        a, b = self.pair()
        crossed_OR = product(a.to(like(self.base)["dtype"]), held(self.base)).t().to(b.dtype)
        square_O = self.get_buffer("square") + 2 * self.scale * (crossed_OR * b).sum(1) + self.scale**2 * ((b @ (a @ a.t())) * b).sum(1)
        found = square_O.clamp(min=0).sqrt()
        self._known = (version, found) if writing else None
        return found

    def train(self, mode: bool = True) -> Self:
        self._known = None
        return super().train(mode)

    def merged(self) -> nn.Module:
        """The base with the turned and stretched weight, computed in fp32 and rounded once."""
        weight_OI = weight_of(self.base)
        changed = (weight_OI.to(self.a.dtype) + self.delta()) * (self.magnitude / self.length())[:, None]
        weight_OI.copy_(changed.to(weight_OI.dtype))
        return self.base


@METHODS.add("dora")
@settings
class Dora(Lora):
    """LoRA that learns direction and length apart: a little better at small ranks, a third slower."""

    about = About(when="small ranks (4 to 16), when LoRA falls a little short", paper="2402.09353", peft_type="LORA")

    def count_at(self, path: str, shape: tuple[int, int]) -> int:
        return super().count_at(path, shape) + shape[0]

    def _candidates(self, shapes: Shapes) -> dict[str, tuple[int, int]]:
        return {path: shape for path, shape in super()._candidates(shapes).items() if path in shapes.linears}

    def linear_part(self, base: nn.Module, start: Start, scale: float) -> LoraLinear:
        return DoraLinear(base, start, scale=scale, dropout=self.dropout)

    def peft_options(self) -> dict[str, Any]:
        return {"use_dora": True}

    def extra_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        magnitudes = {
            f"{path}{peft_io.MAGNITUDE}": module.magnitude for path, module in model.named_modules() if isinstance(module, DoraLinear)
        }
        return super().extra_tensors(model) | magnitudes
