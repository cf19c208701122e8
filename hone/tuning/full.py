"""Full fine-tuning: everything moves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from safetensors.torch import load_model
from torch import nn

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning.base import METHODS, About, Tuning
from hone.tuning.packed import packed_layers
from hone.tuning.shapes import Shapes


def base_moved() -> HoneError:
    """For methods that move the base's own weights."""
    what = "this method moves the base weights, so the base cannot be shown by stepping aside"
    return HoneError("M011", what, where="tuning.method", fix="load the base model beside it")


def check_plain(model: nn.Module, name: str) -> None:
    """Raise M099 where weights that are to move are quantised."""
    if packed_layers(model):
        what = f"tuning.method={name} moves the base's own weights, and this base is quantised"
        raise HoneError("M099", what, where="tuning.method", fix="set tuning.method=lora, or model.quantise=none with a 16-bit model")


@METHODS.add("full")
@settings
class Full(Tuning):
    """Every weight moves. Best quality when the data is large; needs about eight times LoRA's memory."""

    about = About(
        when="much data, much memory, and a whole new model is wanted",
        artifact="model",
        learning_rate=2e-5,
    )

    def attach(self, model: nn.Module, *, seed: int) -> None:
        check_plain(model, "full")
        model.requires_grad_(True)

    def count(self, shapes: Shapes) -> int:
        return sum(math.prod(shape) for shape in shapes.parameters.values())

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        raise base_moved()

    def detach(self, model: nn.Module) -> None:
        raise base_moved()

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        model.save_pretrained(folder)  # type: ignore[operator]

    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        load_model(model, str(folder / "model.safetensors"), strict=False)
