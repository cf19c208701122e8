"""A shrunken copy of a model and of its tuning: the same classes, options and vocabulary, with few layers and little width."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from hone.core.errors import HoneError
from hone.tuning import Tuning
from hone.tuning.base import name_of

LAYERS, HEAD, GROUPS, WINDOW, EXPERTS, RANK = 2, 16, 2, 24, 4, 8
"""Layers (more where they differ in kind), size and number of key heads, sliding window, experts, rank of adapters."""
WIDE = 8
"""Query heads of a key head from which on one key head is enough."""
LARGEST = 64_000_000
"""Parameters of a model that is left as wide as it is, where its width cannot be changed."""
COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")
CHOSEN = ("num_experts_per_tok", "moe_top_k")
INNER = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")


def shrink(config: PreTrainedConfig, *, seed: int = 0) -> PreTrainedModel:
    """A random model of the configuration's class, small enough for a proof. Raises M110 where none can be built.

    Grouping of heads, activation, norms, positions, windows (shortened, so that they matter), soft caps, ties and the whole
    vocabulary stay. What cannot be made narrow is only cut to few layers.
    """
    for narrow in (True, False):
        try:
            model = _built(_cut(copy.deepcopy(config), narrow=narrow), seed)
            with torch.no_grad():
                model(input_ids=torch.arange(3, 9)[None], use_cache=False)
        except Exception:  # configurations contradict each other in as many ways as there are architectures
            continue
        if narrow or sum(p.numel() for p in model.parameters()) <= LARGEST:
            return model
    what = f"no small model of the kind '{config.model_type}' can be built from its configuration"
    raise HoneError("M110", what, where="hone prove", fix="please report the architecture; training it is not affected")


def _built(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Weights as lively as those of a trained model, so that what is lost shows."""
    builder: Any = AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = builder.from_config(config, dtype=torch.float32)
        words = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None}
        for parameter in model.parameters():
            shape = parameter.shape
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn(shape)
            else:
                parameter.data.normal_(0, 1.5 / math.sqrt(shape[-1] if id(parameter) in words else max(shape[-2:])))
    model.eval()
    return model


def _cut(config: PreTrainedConfig, *, narrow: bool) -> PreTrainedConfig:
    inner: Any = config.get_text_config()
    _layers(inner)
    for name in ("attention_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "hidden_dropout", "dropout"):
        if _has(inner, name):
            setattr(inner, name, 0.0)
    if inner.to_dict().get("sliding_window"):
        inner.sliding_window = min(WINDOW, inner.sliding_window)
    if narrow:
        _width(inner)
    config._attn_implementation = None  # the default of this machine
    return config


def _has(config: Any, name: str) -> bool:
    return config.to_dict().get(name) is not None


def _layers(inner: Any) -> None:
    """The first layer of each kind, and at least two."""
    count = inner.num_hidden_layers
    kept, kinds = list(range(min(LAYERS, count))), inner.to_dict().get("layer_types")
    if kinds:
        kept = sorted({kinds.index(kind) for kind in kinds} | set(kept))
        inner.layer_types = [kinds[i] for i in kept]
    inner.num_hidden_layers = len(kept)


def _width(inner: Any) -> None:
    """Few key heads, each serving as many queries as before; the inner size keeps its ratio."""
    options = inner.to_dict()
    heads = inner.num_attention_heads
    keys = options.get("num_key_value_heads") or heads
    wide = inner.hidden_size
    kept = min(GROUPS if heads // keys < WIDE else 1, keys)
    inner.num_attention_heads = kept * (heads // keys)
    if options.get("num_key_value_heads"):
        inner.num_key_value_heads = kept
    size = min(HEAD, options.get("head_dim") or wide // heads)
    if options.get("head_dim"):
        inner.head_dim = size
    inner.hidden_size = max(2, inner.num_attention_heads) * size
    for name in INNER:
        if _has(inner, name):
            setattr(inner, name, max(8, round(options[name] / wide * inner.hidden_size) // 8 * 8))
    for name in COUNTS:
        if _has(inner, name):
            setattr(inner, name, min(EXPERTS, options[name]))
    for name in CHOSEN:
        if _has(inner, name):
            setattr(inner, name, min(2, options[name]))
    _positions(inner, size)


def _positions(inner: Any, size: int) -> None:
    """Lists of factors for rotary positions have an entry for every pair of a head."""
    for table in (options for options in (inner.to_dict().get("rope_parameters"), inner.to_dict().get("rope_scaling")) if options):
        for name, value in table.items():
            if isinstance(value, list) and name.endswith("factor"):
                table[name] = value[: size // 2]
        inner.rope_parameters = table


def shrunken(tuning: Tuning, layers: int) -> Tuning:
    """The same method for a shrunken model: a rank that it can hold, at the same scale, on layers that it has.

    Raises M111 for a method that is made of adapters that were trained before.
    """
    have: Mapping[str, Any] = {field.name: getattr(tuning, field.name) for field in fields(tuning)}  # type: ignore[arg-type]
    if "adapters" in have:
        what = f"'{name_of(tuning)}' is made of trained adapters, which do not fit a smaller model"
        raise HoneError("M111", what, where="tuning.method", fix="prove the runs that made them")
    less: dict[str, Any] = {}
    rank = have.get("rank")
    if isinstance(rank, int) and rank > RANK:
        less["rank"] = RANK
        if "alpha" in have:
            less["alpha"] = _alpha(have, rank)
    if "target_rank" in have:
        less["target_rank"] = min(have["target_rank"], max(1, min(RANK, have["rank"]) // 2))
    if "every" in have and "target_rank" in have:
        less["every"] = 1
    if have.get("layers") is not None:
        less["layers"] = tuple(i for i in have["layers"] if i < layers) or (layers - 1,)
    if isinstance(have.get("last"), int):
        less["last"] = min(have["last"], layers)
    if "ranks" in have:
        less["ranks"] = {name: min(each, RANK) for name, each in have["ranks"].items()}
    return replace(tuning, **less)  # type: ignore[type-var]


def _alpha(have: Mapping[str, Any], rank: int) -> float:
    """With which a smaller rank is as loud as before."""
    divisor = math.sqrt if have.get("rslora") else float
    alpha = have["alpha"] if have["alpha"] is not None else 2.0 * rank
    return alpha / divisor(rank) * divisor(RANK)
