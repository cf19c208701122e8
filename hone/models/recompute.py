"""Blocks that are computed again in the backward instead of keeping what they need (arXiv 1604.06174), through transformers' own seam."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import nn

from hone.core.errors import HoneError
from hone.models.policy import using_attention


def recompute_blocks(model: nn.Module, wanted: bool) -> None:
    """Switch it on or off for every block of a model. It works while training only, and changes no number.

    Raises M090 for an architecture that transformers cannot do this for.
    """
    living: Any = model
    if not living.supports_gradient_checkpointing:
        if wanted:
            what = f"{type(model).__name__} cannot compute its blocks again in the backward"
            raise HoneError("M090", what, where="hardware.recompute", fix="hardware.recompute=never, with a smaller hardware.token_budget")
        return
    newer = hasattr(living, "activation_checkpointing_enable")  # transformers 5.2x renamed the pair
    options = {"use_reentrant": False, "context_fn": partial(_as_before, model)}
    if wanted and newer:
        living.activation_checkpointing_enable(options)
    elif wanted:
        living.gradient_checkpointing_enable(options)
    elif recomputes(model):
        living.activation_checkpointing_disable() if newer else living.gradient_checkpointing_disable()


def _as_before(model: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the forward and of its repetition: the backward comes when another attention may have been chosen again."""
    living: Any = model
    return nullcontext(), using_attention(model, str(living.config._attn_implementation))


def recomputes(model: nn.Module) -> bool:
    """Whether any block of a model is computed again."""
    return any(vars(module).get("gradient_checkpointing") is True for module in model.modules())
