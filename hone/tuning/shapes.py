"""Sizes of a model by the paths of its parts, so that what a method would train is counted without building anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.pytorch_utils import Conv1D

from hone.tuning.packed import packed_layers


@dataclass(frozen=True, slots=True)
class Shapes:
    """What the counting formulas know of a model. Read from a real model or from one without memory."""

    linears: dict[str, tuple[int, int]]
    """Path -> (outputs, inputs) of every linear layer but the head."""
    biases: dict[str, int]
    """Path of a module -> size of its bias, head left out."""
    parameters: dict[str, tuple[int, ...]]
    """Name -> shape of every parameter, tied ones once; packed weights as they are when unpacked."""
    paths: frozenset[str]
    """Every module."""
    head: str
    """Path of the language-model head."""
    embedding: str
    """Path of the input embedding, whose table is (vocabulary, hidden)."""
    table: tuple[int, ...]
    tied: bool
    hidden: int
    layers: int
    kv_width: int
    """Elements of a token's keys in one layer: key heads times head size."""
    experts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Path -> (experts, outputs, inputs) of every weight that is stacked for all experts of a mixture."""

    @classmethod
    def of(cls, model: nn.Module) -> Shapes:
        """Sizes of a model on any device, "meta" included."""
        config: Any = model.config
        text = config.get_text_config()
        options = text.to_dict()
        heads = text.num_attention_heads
        head_size = options.get("head_dim") or text.hidden_size // heads
        output = model.get_output_embeddings()  # type: ignore[operator]
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        packed = {f"{path}.weight": shape_of(layer) for path, layer in packed_layers(model).items()}
        inner = {name: module for name, module in model.named_modules() if module is not output}
        return cls(
            linears={name: shape_of(module) for name, module in inner.items() if isinstance(module, nn.Linear | Conv1D)},
            biases={name: module.bias.numel() for name, module in inner.items() if has_bias(module)},
            parameters={name: tuple(parameter.shape) for name, parameter in model.named_parameters()} | packed,
            paths=frozenset(name for name, _ in model.named_modules() if name),
            head=next((name for name, module in model.named_modules() if module is output), ""),
            embedding=next((name for name, module in model.named_modules() if module is embedding), ""),
            table=tuple(embedding.weight.shape),
            tied=output is not None and output.weight is embedding.weight,
            hidden=text.hidden_size,
            layers=text.num_hidden_layers,
            kv_width=(options.get("num_key_value_heads") or heads) * head_size,
            experts={f"{path}.{name}": _three(stack) for path, module in inner.items() for name, stack in stacks_of(module).items()},
        )

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> Shapes:
        """Sizes of the causal language model that a configuration describes; no weight is allocated."""
        with torch.device("meta"):
            model: nn.Module = AutoModelForCausalLM.from_config(config)
        return cls.of(model)


def shape_of(layer: nn.Module) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer; GPT-2's Conv1D stores its weight the other way round."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[1], layer.weight.shape[0]
    assert isinstance(layer, nn.Linear), "not a linear layer"
    return layer.out_features, layer.in_features


def stacks_of(module: nn.Module) -> dict[str, Tensor]:
    """Name -> weights (experts, outputs, inputs), as views, of a module of experts that transformers knows how to run; else nothing."""
    fields = vars(module)
    if not {"has_gate", "has_bias", "has_post_expert_norm", "is_transposed"} <= fields.keys():
        return {}
    names = ("gate_up_proj" if fields["has_gate"] else "up_proj", "down_proj")
    stacks = {name: weight for name, weight in module.named_parameters(recurse=False) if name in names and weight.ndim == 3}
    return {name: weight.detach().mT if fields["is_transposed"] else weight.detach() for name, weight in stacks.items()}


def _three(stack: Tensor) -> tuple[int, int, int]:
    experts, outputs, inputs = stack.shape
    return experts, outputs, inputs


def has_bias(module: nn.Module) -> bool:
    """Whether a module adds a vector of its own to its output."""
    return isinstance(module, nn.Linear | nn.LayerNorm | Conv1D) and module.bias is not None


def bias_of(layer: nn.Module) -> torch.Tensor | None:
    """The vector that a layer adds to its output, if it has one."""
    bias: Any = layer.bias
    assert bias is None or isinstance(bias, torch.Tensor)
    return bias
