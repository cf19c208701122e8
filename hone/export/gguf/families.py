"""Which architectures we write as GGUF, and for each: its metadata, its names, and what llama.cpp wants changed in its tensors.

Shape legend: O output features, I input features, H heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hone.core.errors import HoneError

Metadata = dict[str, Any]
"""GGUF keys without the architecture in front of them; int is uint32, float is float32."""
OUTPUT_BIAS = "self_attn.o_proj.bias"
ROPE_KINDS = ("default", "linear", "llama3", "yarn", "longrope")


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of llama.cpp and how a transformers model becomes one."""

    arch: str
    activation: tuple[str, ...]
    swapped: bool = False
    """llama.cpp rotates neighbouring pairs in this architecture: rows of queries and keys are put in that order."""
    norm_offset: float = 0.0
    """transformers multiplies with 1 + weight here, llama.cpp with the weight."""
    flipped: bool = False
    """Linear weights lie as (inputs, outputs) in transformers."""
    output_bias: bool = False
    """Whether llama.cpp adds a bias to what attention puts out; it knows those of queries, keys and values everywhere."""
    window_every: int = 0
    """Every n-th layer sees everything, the others a sliding window; 0 is no windows."""

    def metadata(self, config: Mapping[str, Any]) -> Metadata:
        """All keys of the architecture. Raises M081 for an option that llama.cpp would not honour."""
        self.check(config)
        if self.arch == "gpt2":
            return _gpt2(config)
        return _common(config) | _rope(self, config) | _gemma(self, config)

    def store(self, name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
        """A transformers tensor as it lies in the file, fp32 or wider where it has to be computed."""
        if self.flipped and tensor.dim() == 2 and not name.endswith(("wte.weight", "wpe.weight", "lm_head.weight")):
            return tensor.t()
        if self.norm_offset and name.endswith("norm.weight"):
            return tensor.float() + self.norm_offset
        heads = self._heads(name, config)
        return _swap(tensor, heads) if heads else tensor

    def restore(self, name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
        """The inverse of `store`."""
        if self.flipped and tensor.dim() == 2 and not name.endswith(("wte.weight", "wpe.weight", "lm_head.weight")):
            return tensor.t()
        if self.norm_offset and name.endswith("norm.weight"):
            return tensor - self.norm_offset
        heads = self._heads(name, config)
        return _unswap(tensor, heads) if heads else tensor

    def holds(self, name: str, tensor: Callable[[], Tensor]) -> bool:
        """Whether a tensor goes into the file: a bias of zeros that llama.cpp does not add need not. Raises M081 for another one."""
        if self.output_bias or not name.endswith(OUTPUT_BIAS):
            return True
        _expect(not bool(tensor().any()), f"a bias in '{name.removesuffix('.bias')}'")
        return False

    def _heads(self, name: str, config: Mapping[str, Any]) -> int:
        """Heads whose rows are swapped in this tensor; 0 for none."""
        if not self.swapped:
            return 0
        if ".q_proj." in name:
            return int(config["num_attention_heads"])
        return int(config["num_key_value_heads"]) if ".k_proj." in name else 0

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise M081 for what llama.cpp computes in another way, or not at all."""
        act = config.get("hidden_act") or config.get("hidden_activation") or config.get("activation_function")
        _expect(act in self.activation, f"the activation '{act}'")
        if self.window_every:
            kinds = [
                "full_attention" if (i + 1) % self.window_every == 0 else "sliding_attention" for i in range(config["num_hidden_layers"])
            ]
            _expect(config["layer_types"] == kinds, "another order of windowed layers")
            _expect(not config.get("use_bidirectional_attention"), "use_bidirectional_attention")
            _expect(
                config["query_pre_attn_scalar"] == _query_scale(self.arch, config),
                f"query_pre_attn_scalar={config['query_pre_attn_scalar']}",
            )
        if self.arch == "gpt2":
            _expect(config.get("scale_attn_weights", True), "scale_attn_weights=false")
            _expect(not config.get("scale_attn_by_inverse_layer_idx"), "scale_attn_by_inverse_layer_idx")
            _expect(not config.get("add_cross_attention"), "add_cross_attention")


FAMILIES: dict[str, Family] = {
    "llama": Family("llama", ("silu",), swapped=True, output_bias=True),
    "mistral": Family("llama", ("silu",), swapped=True, output_bias=True),
    "qwen2": Family("qwen2", ("silu",)),
    "qwen3": Family("qwen3", ("silu",)),
    "gemma2": Family("gemma2", ("gelu_pytorch_tanh",), norm_offset=1.0, window_every=2),
    "gemma3_text": Family("gemma3", ("gelu_pytorch_tanh",), norm_offset=1.0, window_every=6),
    "phi3": Family("phi3", ("silu",)),
    "gpt2": Family("gpt2", ("gelu_new",), flipped=True),
}
"""By transformers' model_type. SmolLM is a Llama, Phi-4 a Phi-3."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a configuration. Raises M080 for an architecture that we cannot write."""
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        fix = f"use --to merged and llama.cpp's own converter; written here: {', '.join(FAMILIES)}"
        raise HoneError("M080", f"GGUF files of the architecture '{kind}' cannot be written here", where="--to gguf", fix=fix)
    return FAMILIES[kind]


def by_arch(arch: str) -> tuple[str, Family]:
    """transformers' model_type and the family for an architecture of GGUF. Raises M080."""
    for kind, family in FAMILIES.items():
        if family.arch == arch:
            return kind, family
    known = ", ".join(sorted({family.arch for family in FAMILIES.values()}))
    raise HoneError(
        "M080", f"GGUF files of the architecture '{arch}' cannot be read here", where="general.architecture", fix=f"read here: {known}"
    )


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise HoneError(
            "M081",
            f"this model uses {what}, which llama.cpp would not honour",
            where="config.json",
            fix="use --to merged and serve it with vLLM or hone",
        )


def head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _query_scale(arch: str, config: Mapping[str, Any]) -> int:
    """What llama.cpp takes for query_pre_attn_scalar: it knows the 27B models by their number of layers."""
    largest = {"gemma2": 46, "gemma3": 62}[arch]
    if config["num_hidden_layers"] == largest:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return head_size(config)


def _common(config: Mapping[str, Any]) -> Metadata:
    size = head_size(config)
    return {
        "vocab_size": config["vocab_size"],
        "context_length": _context(config),
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": size,
        "attention.value_length": size,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
    }


def _context(config: Mapping[str, Any]) -> int:
    """Positions that llama.cpp computes as transformers does: it has no sliding window in most architectures."""
    context, window = int(config["max_position_embeddings"]), config.get("sliding_window")
    windowed = config["model_type"] in ("mistral", "phi3") or config.get("use_sliding_window")
    return min(context, int(window)) if windowed and window else context


def _rope(family: Family, config: Mapping[str, Any]) -> Metadata:
    rope = rope_of(config)
    kind = rope.get("rope_type", "default")
    _expect(kind in ROPE_KINDS and (kind != "longrope" or family.arch == "phi3"), f"rope scaling '{kind}'")
    _expect(kind != "llama3" or family.arch == "llama", f"rope scaling '{kind}'")
    rotated = int(head_size(config) * (rope.get("partial_rotary_factor") or 1.0))
    _expect(rotated == head_size(config) or family.arch == "phi3", "partial rotary embeddings")
    found: Metadata = {"rope.dimension_count": rotated, "rope.freq_base": float(rope["rope_theta"])}
    if kind in ("linear", "yarn"):
        found |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        found["rope.scaling.original_context_length"] = int(rope["original_max_position_embeddings"])
    if kind == "longrope":
        found |= _longrope(config, rope)
    return found


def rope_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rope of the layers that see everything."""
    rope: Mapping[str, Any] = config["rope_parameters"]
    found: Mapping[str, Any] = rope.get("full_attention", rope)
    return found


def _longrope(config: Mapping[str, Any], rope: Mapping[str, Any]) -> Metadata:
    original = int(rope.get("original_max_position_embeddings") or config["original_max_position_embeddings"])
    scale = config["max_position_embeddings"] / original
    factor = rope.get("attention_factor") or (math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0)
    return {"rope.scaling.original_context_length": original, "rope.scaling.attn_factor": float(factor)}


def _gemma(family: Family, config: Mapping[str, Any]) -> Metadata:
    if not family.window_every:
        return {}
    found: Metadata = {"attention.sliding_window": int(config["sliding_window"])}
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.get(key):
            found[key] = float(config[key])
    if family.arch == "gemma3":
        local = config["rope_parameters"]["sliding_attention"]
        _expect(local.get("rope_type", "default") == "default", "rope scaling in windowed layers")
        _expect(not config.get("attn_logit_softcapping"), "attn_logit_softcapping")
        found["rope.freq_base_swa"] = float(local["rope_theta"])
    return found


def _gpt2(config: Mapping[str, Any]) -> Metadata:
    return {
        "vocab_size": config["vocab_size"],
        "context_length": config["n_positions"],
        "embedding_length": config["n_embd"],
        "block_count": config["n_layer"],
        "feed_forward_length": config.get("n_inner") or 4 * config["n_embd"],
        "attention.head_count": config["n_head"],
        "attention.layer_norm_epsilon": float(config["layer_norm_epsilon"]),
    }


def extra_tensors(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors that GGUF has and transformers computes: the factors of scaled rope."""
    if config.get("model_type") == "gpt2":
        return {}
    rope = rope_of(config)
    kind = rope.get("rope_type", "default")
    if kind == "llama3":
        return {"rope_freqs.weight": _llama3_factors(config, rope)}
    if kind == "longrope":
        return {f"rope_factors_{word}.weight": torch.tensor(rope[f"{word}_factor"], dtype=torch.float32) for word in ("long", "short")}
    return {}


def _llama3_factors(config: Mapping[str, Any], rope: Mapping[str, Any]) -> Tensor:
    """What each frequency is divided by: long waves by the factor, short ones by one, those between by something between."""
    size, old = head_size(config), rope["original_max_position_embeddings"]
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = ((old / waves - low) / (high - low)).clamp(0, 1)
    factors: Tensor = 1 / ((1 - share) / rope["factor"] + share)
    return factors.float()


def _swap(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head: halves (x0 x1 ... | y0 y1 ...) to neighbours (x0 y0 x1 y1 ...)."""
    rest = tensor.shape[1:]
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *rest).transpose(1, 2).reshape(tensor.shape)


def _unswap(tensor: Tensor, heads: int) -> Tensor:
    rest = tensor.shape[1:]
    return tensor.reshape(heads, tensor.shape[0] // heads // 2, 2, *rest).transpose(1, 2).reshape(tensor.shape)


def gguf_names(arch: str, blocks: int) -> Callable[[str], str]:
    """transformers' name of a tensor to GGUF's, as the gguf package maps them. Raises M080 for a name that it does not know."""
    from hone.export.gguf.package import gguf_package

    gguf = gguf_package()
    mapped = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], blocks)

    def name_of(name: str) -> str:
        found = mapped.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise HoneError("M080", f"the tensor '{name}' has no name in GGUF's {arch}", where="--to gguf", fix="use --to merged")
        return str(found)

    return name_of
