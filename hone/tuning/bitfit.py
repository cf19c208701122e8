"""BitFit (arXiv 2106.10199): only biases move. A model without biases gets them, at zero, where its linear layers are.

Shape legend: O output features.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning.base import METHODS, About, Beside, Tuning, replace
from hone.tuning.packed import like
from hone.tuning.shapes import Shapes, bias_of
from hone.tuning.targets import ALL, choose

SWITCHES = {"attention_bias": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp_bias": ("gate_proj", "up_proj", "down_proj")}
"""Settings of an architecture that give biases to these layers."""


class Shifted(Beside):
    """A frozen layer whose output is shifted by `bias` (O,), on top of the bias that it has."""

    def __init__(self, base: nn.Module, size: int) -> None:
        super().__init__(base)
        near = like(base)
        self.bias = nn.Parameter(torch.zeros(size, device=near["device"], dtype=torch.promote_types(near["dtype"], torch.float32)))

    def forward(self, x: Tensor) -> Any:
        base = self.base
        if not self.active:
            return base(x)
        if type(base) is nn.Linear:
            return linear(x, base.weight, self.total(x.dtype))
        if type(base) is nn.LayerNorm:
            return layer_norm(x, base.normalized_shape, base.weight, self.total(x.dtype), base.eps)
        return base(x) + self.bias.to(x.dtype)

    def total(self, dtype: torch.dtype) -> Tensor:
        """The whole bias, added in fp32 and rounded once."""
        old = bias_of(self.base)
        return (self.bias if old is None else self.bias + old).to(dtype)

    def merged(self) -> nn.Module:
        """The base with the whole bias."""
        self.base.bias = nn.Parameter(self.total(next(self.base.parameters()).dtype), requires_grad=False)
        return self.base


@METHODS.add("bitfit")
@settings
class BitFit(Tuning):
    """Only biases move: a thousandth of the weights. Good for a few hundred rows of a narrow task."""

    about = About(when="very little data, or hundreds of tasks on one base", paper="2106.10199", learning_rate=1e-3)

    biases: Literal["auto", "existing", "added"] = "auto"
    """existing moves the biases that the model has, norms included; added gives every linear layer one; auto takes what
    the model has, and adds where it has none at all."""
    targets: tuple[str, ...] | str = ALL
    """Layers whose biases move: names, patterns, or all-linear for all (norms too, where they have biases)."""
    exclude: tuple[str, ...] = ()
    """Names or patterns that are left alone."""
    layers: tuple[int, ...] | None = None
    """Indices of the blocks; None means all, and what lies outside the blocks."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)
        sizes = self._sizes(Shapes.of(model))
        for _ in replace(model, lambda path, _: path in sizes, lambda path, old: Shifted(old, sizes[path])):
            pass

    def count(self, shapes: Shapes) -> int:
        return sum(self._sizes(shapes).values())

    def _sizes(self, shapes: Shapes) -> dict[str, int]:
        """Path -> size of every bias that moves."""
        added = self.biases == "added" or (self.biases == "auto" and not shapes.biases)
        known = {path: outputs for path, (outputs, _) in shapes.linears.items()} if added else shapes.biases
        return {path: known[path] for path in choose(known, self.targets, every=shapes.paths, exclude=self.exclude, layers=self.layers)}

    @torch.no_grad()
    def merge(self, model: nn.Module) -> None:
        """Write the biases into the layers, and say in the configuration that they are there."""
        self.check_merge(model)
        switches = _needed(model)
        super().merge(model)
        config: Any = model.config
        for switch in switches:
            setattr(config.get_text_config(), switch, True)
            for layer in _unbiased(model, SWITCHES[switch]):
                layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_features), requires_grad=False)

    def check_merge(self, model: nn.Module) -> None:
        """Raise M040 where a layer has got a bias that its architecture has no place for."""
        config: Any = model.config
        options = config.get_text_config().to_dict()
        known = {name for switch, names in SWITCHES.items() if switch in options for name in names}
        for path, module in _added(model).items():
            if path.rpartition(".")[2] not in known and bool(module.bias.any()):
                what = f"'{options.get('model_type')}' models have no place for a bias in '{path}'"
                fix = "serve the adapter with hone, or train with tuning.targets=[q_proj,k_proj,v_proj,o_proj] or tuning.method=lora"
                raise HoneError("M040", what, where="tuning.method", fix=fix)


def _added(model: nn.Module) -> dict[str, Shifted]:
    """Shifts of layers that have no bias of their own."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Shifted) and bias_of(module.base) is None}


def _needed(model: nn.Module) -> list[str]:
    """The switches that must be on for the added biases to be loaded again."""
    names = {path.rpartition(".")[2] for path in _added(model)}
    return [switch for switch, layers in SWITCHES.items() if names & set(layers)]


def _unbiased(model: nn.Module, names: tuple[str, ...]) -> list[nn.Linear]:
    """The layers of a switch that have no bias yet."""
    found = ((path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear) and bias_of(module) is None)
    return [module for path, module in found if path.rpartition(".")[2] in names]
