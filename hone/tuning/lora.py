"""Low-rank adaptation (arXiv 2106.09685), with rank-stabilised scaling (arXiv 2312.03732) as an option.

Shape legend: T tokens, I input features, O output features, R rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.tuning import peft_io
from hone.tuning.base import METHODS, About, Beside, Tuning, replace
from hone.tuning.shapes import Shapes, shape_of


class LowRank(torch.autograd.Function):
    """y = x W' + bias + scale (x A') B' with a frozen W: two skinny products more than the plain layer, no copies.

    Its plain twin is the expression above under autograd; a test holds them together.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
        x_TI = x.reshape(-1, x.shape[-1])
        down_TR = x_TI @ a_RI.to(x.dtype).t()
        y_TO = torch.nn.functional.linear(x_TI, weight_OI, bias_O)
        y_TO.addmm_(down_TR, b_OR.to(x.dtype).t(), alpha=scale)
        ctx.save_for_backward(x_TI, weight_OI, a_RI, b_OR, down_TR)
        ctx.scale = scale
        return y_TO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x_TI, weight_OI, a_RI, b_OR, down_TR = ctx.saved_tensors
        grad_TO = grad.reshape(-1, grad.shape[-1])
        d_down_TR = (grad_TO @ b_OR.to(grad.dtype)).mul_(ctx.scale)
        d_b = (grad_TO.t() @ down_TR).to(b_OR.dtype).mul_(ctx.scale)
        d_a = (d_down_TR.t() @ x_TI).to(a_RI.dtype)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (grad_TO @ weight_OI).addmm_(d_down_TR, a_RI.to(grad.dtype)).view(*grad.shape[:-1], -1)
        return d_x, None, None, d_a, d_b, None


class LoraLinear(Beside):
    """A frozen linear layer and its low-rank change. `a` (R, I) and `b` (O, R) are fp32 masters, cast where used."""

    def __init__(self, base: nn.Module, *, rank: int, scale: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__(base)
        outputs, inputs = shape_of(base)
        device = next(base.parameters()).device
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        dtype = torch.promote_types(next(base.parameters()).dtype, torch.float32)
        bound = 1 / math.sqrt(inputs)  # kaiming_uniform with a = sqrt(5), as the reference implementation
        a = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(a.to(device, dtype))
        self.b = nn.Parameter(torch.zeros(outputs, rank, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Any:
        if not self.active:
            return self.base(x)
        plain = type(self.base) is nn.Linear and not self.base.weight.requires_grad and x.dtype == self.base.weight.dtype
        if plain and (self.dropout.p == 0 or not self.training):
            return LowRank.apply(x, self.base.weight, self.base.bias, self.a, self.b, self.scale)
        down = self.dropout(x) @ self.a.to(x.dtype).t()
        return self.base(x) + self.scale * (down @ self.b.to(x.dtype).t())

    def delta(self) -> Tensor:
        """The change of the weight, in the base's own orientation and fp32."""
        change = self.scale * (self.b @ self.a)
        return change.t() if isinstance(self.base, Conv1D) else change

    def merged(self) -> nn.Module:
        """The base with the change folded in, added in fp32 and rounded once."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        weight.copy_((weight.to(self.a.dtype) + self.delta()).to(weight.dtype))
        return self.base


@METHODS.add("lora")
@settings
class Lora(Tuning):
    """Small low-rank matrices beside frozen weights. The default: near full quality at a fraction of the memory."""

    about = About(when="nearly always: the default", paper="2106.09685", peft_type="LORA")

    rank: Annotated[int, Ge(1)] = 16
    """Size of the added matrices. 8 to 64 is usual; more rank holds more, and needs more data."""
    alpha: Annotated[float, Gt(0)] | None = None
    """Scale of the change is alpha / rank. None means twice the rank."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the adapter's inputs dropped while training."""
    targets: tuple[str, ...] | str = "all-linear"
    """Layers to adapt: names such as q_proj, patterns (regular expressions), or all-linear."""
    exclude: tuple[str, ...] = ()
    """Names or patterns that are left alone."""
    layers: tuple[int, ...] | None = None
    """Indices of the blocks to adapt; None means all."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, so that large ranks keep learning."""

    @classmethod
    def from_peft(cls, folder: Path) -> Self:
        return cls(**peft_io.load_adapter(folder).settings())

    @property
    def scale(self) -> float:
        alpha = self.alpha if self.alpha is not None else 2.0 * self.rank
        return alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        self._check_names(model)
        wanted = {name for name in linear_layers(model) if self._chosen(name)}
        if not wanted:
            what = "targets, exclude and layers together leave no layer to adapt"
            raise HoneError("M004", what, where="tuning", fix="exclude less, or name other targets or layers")
        for _ in replace(
            model,
            lambda name, _: name in wanted,
            lambda _, old: LoraLinear(old, rank=self.rank, scale=self.scale, dropout=self.dropout, generator=generator),
        ):
            pass

    def count(self, shapes: Shapes) -> int:
        return sum(self.rank * sum(shape) for path, shape in shapes.linears.items() if self._chosen(path))

    def _check_names(self, model: nn.Module) -> None:
        """M004 for a target, an exclusion or a block that is nowhere in this model: it would quietly do nothing."""
        linear, every = list(linear_layers(model)), [name for name, _ in model.named_modules() if name]
        known = {name.rpartition(".")[2] for name in linear}
        for pattern in self._patterns:
            if not any(_matches(pattern, name) for name in linear):
                what = f"no linear layer of this model matches '{pattern}'"
                raise HoneError("M004", what, where="tuning.targets", fix=nearest(pattern.rpartition(".")[2], known))
        for pattern in self.exclude:
            if not any(_matches(pattern, name) for name in every):
                what = f"nothing in this model matches '{pattern}', so nothing would be excluded"
                raise HoneError("M004", what, where="tuning.exclude", fix=nearest(pattern.rpartition(".")[2], known))
        blocks = {_block(name) for name in linear} - {None}
        for index in self.layers or ():
            if index not in blocks:
                what = f"this model has no block {index}; its {len(blocks)} blocks count from 0"
                raise HoneError("M004", what, where="tuning.layers", fix=f"the last one is {len(blocks) - 1}")

    @property
    def _patterns(self) -> tuple[str, ...]:
        if self.targets == "all-linear":
            return ()
        return (self.targets,) if isinstance(self.targets, str) else self.targets

    def _chosen(self, name: str) -> bool:
        if self.layers is not None and _block(name) not in self.layers:
            return False
        if any(_matches(pattern, name) for pattern in self.exclude):
            return False
        return self.targets == "all-linear" or any(_matches(pattern, name) for pattern in self._patterns)

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        tensors = {name: (layer.a.detach(), layer.b.detach()) for name, layer in lora_layers(model).items()}
        transposed = any(isinstance(layer.base, Conv1D) for layer in lora_layers(model).values())
        alpha = self.alpha if self.alpha is not None else 2.0 * self.rank
        options = {
            "r": self.rank,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "fan_in_fan_out": transposed,
        }
        peft_io.save_adapter(folder, tensors, options, base=base, linear=linear_layers(model))

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        stored = peft_io.load_adapter(folder, base=base)
        layers = lora_layers(model)
        for known in (linear_layers(model), {name: layer.base for name, layer in layers.items()}):
            peft_io.check_fit(stored, {name: shape_of(layer) for name, layer in known.items()}, where=str(folder))
        for name, (a, b) in stored.at(rank=self.rank, scale=self.scale).items():
            layers[name].a.copy_(a)
            layers[name].b.copy_(b)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Path to layer of all that could be adapted: every linear layer but the head, as it is without adapters."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    plain = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head}
    return {name.removesuffix(".base"): module for name, module in plain.items()}


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Path to layer of every adapted layer."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def _block(name: str) -> int | None:
    """The index of the block that a layer is in: the first number of its path, for later ones count experts."""
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def _matches(pattern: str, name: str) -> bool:
    """A plain name is the last part of the path; anything else is a regular expression on the whole path."""
    if name.rpartition(".")[2] == pattern or name == pattern:
        return True
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise HoneError(
            "M004", f"'{pattern}' is no name and no valid pattern ({error})", where="tuning.targets", fix="write q_proj, or .*_proj"
        ) from None
