"""A model's modules and names without its weights: what every tensor is called, and which layers store their weight transposed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.pytorch_utils import Conv1D


def skeleton(source: Path | PreTrainedConfig) -> nn.Module:
    """The modules of the model in a folder (or of a configuration), on the meta device: no memory, no numbers."""
    config: Any = source
    if isinstance(source, Path):
        config = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    config._attn_implementation = "eager"
    builder: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model: nn.Module = builder.from_config(config)
    return model


def transposed(model: nn.Module) -> frozenset[str]:
    """Names of the weights that lie as (inputs, outputs): those of GPT-2's Conv1D."""
    return frozenset(f"{path}.weight" for path, module in model.named_modules() if isinstance(module, Conv1D))


def own_name(stored: str, model: nn.Module, known: frozenset[str]) -> str:
    """What the model calls a stored tensor: old files leave out the prefix of the language part."""
    prefixed = f"{model.base_model_prefix}.{stored}"
    return prefixed if stored not in known and prefixed in known else stored
