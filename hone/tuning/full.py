"""Full fine-tuning: everything moves."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from safetensors.torch import load_model
from torch import nn

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning.base import METHODS


@METHODS.add("full")
@settings
class Full:
    """Every weight moves. Best quality when the data is large; needs about eight times LoRA's memory."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(True)

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        raise HoneError(
            "M011", "full tuning moves the base weights, so the base cannot be shown by stepping aside", fix="load the base model beside it"
        )

    def merge(self, model: nn.Module) -> None:
        """Nothing to fold: the weights are the model."""

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        model.save_pretrained(folder)  # type: ignore[operator]

    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        load_model(model, str(folder / "model.safetensors"), strict=False)
