"""IA3 (arXiv 2205.05638): keys, values and the inside of the feed-forward are rescaled, each feature by a learned factor.

Shape legend: I input features, O output features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning import folder as adapter_folder
from hone.tuning.base import METHODS, About, Beside, Tuning, replace
from hone.tuning.lowrank import weight_of
from hone.tuning.packed import like
from hone.tuning.shapes import Shapes, shape_of
from hone.tuning.targets import choose, matches

FAMILIES = (
    ("k_proj", "v_proj", "down_proj"),
    ("query_key_value", "mlp.dense_4h_to_h"),
    ("attn.c_attn", "mlp.c_proj"),
    ("k_proj", "v_proj", "fc2"),
    ("k_proj", "v_proj", "fc_out"),
    ("qkv_proj", "down_proj"),
)
"""Layers that make keys and values, then the one that reads the inside of the feed-forward; the first that a model has."""
INNER = tuple(dict.fromkeys(names[-1] for names in FAMILIES))
OF_MIXTURES = ("k_proj", "v_proj")
"""Where the feed-forward is a mixture, whose experts are no linear layers."""
IGNORED = {"task_type", "peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"}
"""peft's settings that do not change what an IA3 adapter computes."""


class Scaled(Beside):
    """A frozen linear layer with its outputs rescaled, or, inside the feed-forward, its inputs."""

    def __init__(self, base: nn.Module, *, inner: bool) -> None:
        super().__init__(base)
        outputs, inputs = shape_of(base)
        near = like(base)
        self.inner = inner
        dtype = torch.promote_types(near["dtype"], torch.float32)
        self.factor = nn.Parameter(torch.ones(inputs if inner else outputs, device=near["device"], dtype=dtype))

    def forward(self, x: Tensor) -> Any:
        if not self.active:
            return self.base(x)
        factor = self.factor.to(x.dtype)
        return self.base(x * factor) if self.inner else self.base(x) * factor

    def merged(self) -> nn.Module:
        """The base with rescaled rows or columns."""
        weight_OI, factor = weight_of(self.base), self.factor
        weight_OI.copy_((weight_OI.to(factor.dtype) * (factor if self.inner else factor[:, None])).to(weight_OI.dtype))
        bias = self.base.bias
        if isinstance(bias, Tensor) and not self.inner:
            bias.copy_((bias.to(factor.dtype) * factor).to(bias.dtype))
        return self.base


@METHODS.add("ia3")
@settings
class Ia3(Tuning):
    """Learned factors on keys, values and the feed-forward: the fewest weights that can be folded in again."""

    about = About(
        when="a few dozen rows, or a great many tiny adapters that must fold in",
        paper="2205.05638",
        peft_type="IA3",
        learning_rate=3e-3,
    )

    targets: tuple[str, ...] | str = "auto"
    """Layers to rescale: names or patterns; auto takes those that make keys and values, and the feed-forward's last."""
    feedforward: tuple[str, ...] = INNER
    """Those of them whose inputs are rescaled instead of their outputs."""
    exclude: tuple[str, ...] | str = ()
    """Names or patterns that are left alone."""

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        raw = adapter_folder.read_config(folder)
        known = {"target_modules", "exclude_modules", "feedforward_modules", "fan_in_fan_out", "init_ia3_weights"}
        for key, value in raw.items():
            if value not in (None, False, [], {}) and key not in known | IGNORED:
                what = f"the adapter uses peft's option {key}={value!r}, which cannot be honoured here"
                raise HoneError("M019", what, where=str(folder), fix="merge it into its base with peft, and start from the merged model")
        listed = raw.get("feedforward_modules") or ()
        return cls(
            targets=_names(raw.get("target_modules")),
            feedforward=(listed,) if isinstance(listed, str) else tuple(listed),
            exclude=_names(raw.get("exclude_modules")),
        )

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)
        wanted = set(self._chosen(Shapes.of(model)))
        for _ in replace(model, lambda path, _: path in wanted, lambda path, old: Scaled(old, inner=self._inner(path))):
            pass

    def count(self, shapes: Shapes) -> int:
        return sum(shapes.linears[path][1 if self._inner(path) else 0] for path in self._chosen(shapes))

    def _chosen(self, shapes: Shapes) -> list[str]:
        exclude = (self.exclude,) if isinstance(self.exclude, str) else self.exclude
        return choose(shapes.linears, self.names(shapes), every=shapes.paths, exclude=exclude)

    def names(self, shapes: Shapes) -> tuple[str, ...] | str:
        """The targets, found by the model's own names where they are left open."""
        if self.targets != "auto":
            return self.targets
        for family in (*FAMILIES, *([OF_MIXTURES] if shapes.experts else [])):
            if all(any(matches(name, path) for path in shapes.linears) for name in family):
                return family
        what = "it is not known which layers of this model make keys and values"
        raise HoneError("M004", what, where="tuning.targets", fix="name them, for example tuning.targets=[k_proj,v_proj,down_proj]")

    def _inner(self, path: str) -> bool:
        return any(matches(name, path) for name in self.feedforward)

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        layers = _layers(model)
        config = {
            "peft_type": "IA3",
            "target_modules": sorted(layers),
            "feedforward_modules": sorted(path for path, layer in layers.items() if layer.inner),
            "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
        }
        adapter_folder.write(folder, {f"{path}.ia3_l": _column(layer) for path, layer in layers.items()}, config, base=base)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        stored = adapter_folder.read(folder, base=base)
        adapter_folder.copy_into({f"{path}.ia3_l": _column(layer) for path, layer in _layers(model).items()}, stored, where=str(folder))


def _names(value: Any) -> tuple[str, ...] | str:
    return value if isinstance(value, str) else tuple(value or ())


def _layers(model: nn.Module) -> dict[str, Scaled]:
    return {path: module for path, module in model.named_modules() if isinstance(module, Scaled)}


def _column(layer: Scaled) -> Tensor:
    """The factors in peft's shape: a row (1, I) for inputs, a column (O, 1) for outputs."""
    return layer.factor.data[None] if layer.inner else layer.factor.data[:, None]
