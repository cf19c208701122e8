"""The size of a model, read from its config.json (and its weights' headers when they are here) without torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.plan.headers import stored_tensors
from hone.plan.packed import beside, packed_weights

ALIASES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "head_dim": ("head_dim", "d_kv"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
    "vocab_size": ("vocab_size", "padded_vocab_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "max_seq_len", "n_ctx"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
}
LEARNED_POSITIONS = ("gpt2", "gpt_neo", "gpt_bigcode", "opt", "biogpt")
QUERY_NORMS = ("qwen3", "qwen3_moe", "gemma3", "gemma3_text", "olmo2", "olmo3")
PLAIN_MLP = (*LEARNED_POSITIONS, "gptj", "gpt_neox", "bloom", "falcon", "phi", "codegen", "mpt", "starcoder2", "persimmon", "nemotron")
"""Families whose feed-forward has two matrices; the others have three (gate, up, down)."""
TIED_BY_DEFAULT = (*LEARNED_POSITIONS, "bloom", "mpt", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text")
AGAIN = "copy or download it again"
ORIGINAL = "use the config.json that came with the model"
LARGEST_CONFIG = 32_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What plans and cards need to know about a model. Sizes in elements; `parameters` is exact if the weights are here."""

    family: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int | None
    tied: bool
    experts: int
    parameters: int
    exact: bool
    dtype: str | None
    quantised: str | None
    """How the stored weights are quantised (for example "gptq"), or None."""
    activation: str = "silu"
    """The non-linearity of the feed-forward."""
    query_norms: bool = False
    """Whether queries and keys are normalised, each head for itself."""


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a model's folder. Raises M013 for a file that is missing, too large, or no JSON object."""
    if not file.exists():
        raise HoneError("M013", f"{file.name} is missing", where=str(file.parent), fix=AGAIN)
    if file.stat().st_size > LARGEST_CONFIG:
        what = f"{file.name} is {file.stat().st_size:,} bytes, which is no sensible size for it"
        raise HoneError("M013", what, where=str(file), fix=AGAIN)
    try:
        found = json.loads(file.read_text("utf-8"))
    except RecursionError:
        raise HoneError("M013", f"{file.name} is nested too deeply", where=str(file), fix=AGAIN) from None
    except ValueError as error:
        raise HoneError("M013", f"{file.name} is not valid JSON ({error})", where=str(file), fix=AGAIN) from None
    if not isinstance(found, dict):
        raise HoneError("M013", f"{file.name} is no JSON object", where=str(file), fix=AGAIN)
    return found


def model_facts(path: str | Path) -> ModelFacts:
    """Facts of the model in a folder. Raises M013 for a config that makes no sense, M005 for damaged weight files."""
    folder = Path(path).expanduser()
    config = read_json(folder / "config.json")
    facts = facts_of(config, where=str(folder / "config.json"))
    stored = stored_tensors(folder)
    packed = packed_weights(stored) if stored else {}
    if not stored or (facts.quantised and not packed):
        return facts
    plain = [tensor for name, tensor in stored.items() if tensor.dtype[0] in "FB" and tensor.dtype != "BOOL" and not beside(name, packed)]
    parameters = sum(math.prod(tensor.shape) for tensor in plain) + sum(one.outputs * one.inputs for one in packed.values())
    return replace(facts, parameters=parameters, exact=True)


def facts_of(config: Mapping[str, Any], *, where: str = "config.json") -> ModelFacts:
    """Facts from a configuration alone. Multimodal models are described by their text part."""
    text = language_part(config)
    hidden, layers = _size(text, "hidden_size", where), _size(text, "num_hidden_layers", where)
    heads = _size(text, "num_attention_heads", where, default=1)
    kv_heads = _size(text, "num_key_value_heads", where, default=1 if text.get("multi_query") is True else heads)
    head_dim = _size(text, "head_dim", where, default=max(hidden // heads, 1))
    family = str(config.get("model_type") or "unknown")
    facts = ModelFacts(
        family=family, hidden=hidden, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=head_dim,
        intermediate=_size(text, "intermediate_size", where, default=4 * hidden), vocab=_size(text, "vocab_size", where),
        context=_size(text, "max_position_embeddings", where, default=0) or None, tied=_tied(config, text, family),
        experts=_size(text, "num_experts", where, default=0), parameters=0, exact=False, dtype=_dtype(config, text),
        quantised=quantisation(config), activation=_activation(text), query_norms=family in QUERY_NORMS or bool(text.get("use_qk_norm")),
    )  # fmt: skip
    return replace(facts, parameters=_estimate(facts, text))


def language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the language model inside a configuration."""
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(key), Mapping):
            return {**config, **config[key]}
    return config


def quantisation(config: Mapping[str, Any]) -> str | None:
    """The method that the stored weights were quantised with, or None."""
    settings = language_part(config).get("quantization_config")
    if not settings:
        return None
    return str(settings.get("quant_method", "unknown")) if isinstance(settings, Mapping) else "unknown"


def check_length(context: int | None, length: int) -> None:
    """Raise M002 where sequences would be longer than the positions that the model was trained with."""
    if context is not None and length > context:
        what = f"max_length is {length}, but this model was trained with at most {context} positions"
        fix = f"set data.max_length={context} or less, or choose a model with a longer context"
        raise HoneError("M002", what, where="data.max_length", fix=fix)


def _size(text: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    """A size by any of its names: a whole number from 0 to a trillion."""
    key = next((key for key in ALIASES[name] if text.get(key) is not None), None)
    if key is None:
        if default is None:
            raise HoneError("M013", f"config.json does not say '{name}'", where=where, fix=ORIGINAL)
        return default
    value = text[key]
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        value = max(value)
    least = 1 if default is None else 0
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 10**12:
        raise HoneError("M013", f"config.json says {key} = {value!r}, which is no size", where=where, fix=ORIGINAL)
    return value or (default or 0)


def _tied(config: Mapping[str, Any], text: Mapping[str, Any], family: str) -> bool:
    """Whether head and embedding are one matrix. Llama-like families say it or do not tie; the older ones tie by default."""
    said = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return said if isinstance(said, bool) else family in TIED_BY_DEFAULT


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    said = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype")
    return said if isinstance(said, str) else None


def _activation(text: Mapping[str, Any]) -> str:
    said = text.get("hidden_activation") or text.get("hidden_act") or text.get("activation_function")
    if isinstance(said, str):
        return said
    return "gelu_new" if text.get("model_type") == "gpt2" else "silu"


def _estimate(facts: ModelFacts, text: Mapping[str, Any]) -> int:
    """Parameters by the usual transformer arithmetic; within a few per cent for dense and mixture-of-experts decoders."""
    attention = facts.hidden * facts.head_dim * 2 * (facts.heads + facts.kv_heads)
    feed = (2 if facts.family in PLAIN_MLP else 3) * facts.hidden * facts.intermediate
    if facts.experts:
        width = int(text.get("moe_intermediate_size") or facts.intermediate)
        shared = int(text.get("shared_expert_intermediate_size") or int(text.get("n_shared_experts") or 0) * width)
        feed = 3 * facts.hidden * (facts.experts * width + shared) + facts.experts * facts.hidden
    embeddings = facts.vocab * facts.hidden * (1 if facts.tied else 2)
    positions = (facts.context or 0) * facts.hidden if facts.family in LEARNED_POSITIONS else 0
    return embeddings + positions + facts.layers * (attention + feed + 2 * facts.hidden) + facts.hidden
