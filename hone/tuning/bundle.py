"""Several LoRAs beside one frozen layer, each for its own stretch of the tokens: the base is computed once for all of them.

Shape legend: T tokens, I input features, O output features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hone.tuning.base import Beside, replace
from hone.tuning.lowrank import LoraLinear, weight_of
from hone.tuning.shapes import bias_of

Span = tuple[int, int]


class Spans:
    """Which tokens (start, stop) of the forward at hand belong to which arm; all layers look here."""

    def __init__(self) -> None:
        self.of: dict[int, Span] = {}


class Bundled(torch.autograd.Function):
    """y = x W' + bias, and for each arm its own rows of y + scale (x A') B'. Its plain twin is `Bundle.plain`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, spans: Sequence[Span], scales: Sequence[float], *halves: Tensor
    ) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        y_TO = torch.nn.functional.linear(x_TI, weight_OI, bias_O)
        downs = []
        for (start, stop), scale, a_RI, b_OR in zip(spans, scales, halves[0::2], halves[1::2], strict=True):
            down_TR = x_TI[start:stop] @ a_RI.to(x.dtype).t()
            y_TO[start:stop].addmm_(down_TR, b_OR.to(x.dtype).t(), alpha=scale)
            downs.append(down_TR)
        ctx.save_for_backward(x_TI, weight_OI, *halves, *downs)
        ctx.spans, ctx.scales = spans, scales
        return y_TO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x_TI, weight_OI, *rest = ctx.saved_tensors
        arms = len(ctx.spans)
        halves, downs = rest[: 2 * arms], rest[2 * arms :]
        grad_TO = grad.reshape(-1, grad.shape[-1])
        d_x = grad_TO @ weight_OI if ctx.needs_input_grad[0] else None
        d_halves: list[Tensor] = []
        for (start, stop), scale, a_RI, b_OR, down_TR in zip(ctx.spans, ctx.scales, halves[0::2], halves[1::2], downs, strict=True):
            mine_TO = grad_TO[start:stop]
            d_down_TR = (mine_TO @ b_OR.to(grad.dtype)).mul_(scale)
            d_halves += [(d_down_TR.t() @ x_TI[start:stop]).to(a_RI.dtype), (mine_TO.t() @ down_TR).to(b_OR.dtype).mul_(scale)]
            if d_x is not None:
                d_x[start:stop].addmm_(d_down_TR, a_RI.to(grad.dtype))
        d_x = None if d_x is None else d_x.view(*grad.shape[:-1], -1)
        return d_x, None, None, None, None, *d_halves


class Bundle(Beside):
    """A frozen linear layer and the changes of several arms. The changes belong to the arms' own models; here they are only used."""

    def __init__(self, base: nn.Module, changes: Mapping[int, LoraLinear], spans: Spans) -> None:
        super().__init__(base)
        self._changes, self._spans = [(arm, (change,)) for arm, change in changes.items()], spans

    def forward(self, x: Tensor) -> Any:
        here = [(self._spans.of[arm], change) for arm, (change,) in self._changes if arm in self._spans.of]
        if not self.active or not here:
            return self.base(x)
        if not here[0][1].simple(x):
            return self.plain(x, here)
        halves = [half for _, change in here for half in change.pair()]
        spans, scales = [span for span, _ in here], [change.scale for _, change in here]
        return Bundled.apply(x, weight_of(self.base), bias_of(self.base), spans, scales, *halves)

    def plain(self, x: Tensor, here: Sequence[tuple[Span, LoraLinear]]) -> Tensor:
        """The same under autograd, for bases that are no plain matrix of the input's type."""
        y: Tensor = self.base(x)
        change = torch.zeros_like(y)
        for (start, stop), part in here:
            a, b = part.pair()
            mine = part.scale * (x[..., start:stop, :] @ a.to(x.dtype).t() @ b.to(x.dtype).t())
            change = torch.cat([change[..., :start, :], mine.to(y.dtype), change[..., stop:, :]], -2)
        return y + change


def bundle(model: nn.Module, arms: Mapping[int, Mapping[str, LoraLinear]]) -> Spans:
    """Put the changes of all arms, each by path, into a model that has none. Freezes it; returns where to say whose tokens are whose."""
    model.requires_grad_(False)
    spans, paths = Spans(), {path for changes in arms.values() for path in changes}

    def make(path: str, base: nn.Module) -> nn.Module:
        return Bundle(base, {arm: changes[path] for arm, changes in arms.items() if path in changes}, spans)

    for _ in replace(model, lambda path, _: path in paths, make):
        pass
    return spans
