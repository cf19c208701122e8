"""Reads a GGUF file back into a transformers model and a tokenizer, without llama.cpp: the independent check of the writer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from hone.core.errors import HoneError
from hone.export.gguf.families import OUTPUT_BIAS, by_arch, gguf_names
from hone.export.gguf.header import Header
from hone.export.gguf.package import gguf_package
from hone.export.gguf.words import UNUSED
from hone.export.tensors import without_twins
from hone.models.skeleton import skeleton, transposed


class GgufWeights:
    """The tensors of a file under transformers' names, dequantised when they are read."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.kind, self.family = by_arch(header.arch)
        self.config = config_of(header, self.kind)
        self.bare = skeleton(self.config)
        self.flipped = transposed(self.bare)
        self.options: dict[str, Any] = self.config.to_dict()
        name_of = gguf_names(self.family.arch, int(header.own("block_count")))
        wanted = without_twins(self.bare.state_dict(), self.bare)
        self._own = {name: name_of(name) for name in wanted if name_of(name) in header.tensors}
        missing = [name for name in wanted if name not in self._own and (self.family.output_bias or not name.endswith(OUTPUT_BIAS))]
        if missing:
            raise HoneError(
                "M083",
                f"the file lacks {len(missing)} tensors of the model ('{missing[0]}')",
                where=str(header.file),
                fix="make the file again",
            )

    def names(self) -> list[str]:
        return list(self._own)

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self.header.tensors[self._own[name]].shape
        return shape[::-1] if name in self.flipped else shape

    def dtype(self, name: str) -> torch.dtype:
        return torch.float32

    def get(self, name: str) -> Tensor:
        tensor = read_tensor(self.header, self._own[name])
        return self.family.restore(name, tensor, self.options)

    @property
    def stored(self) -> str:
        """The type of most matrices."""
        kinds = Counter(place.kind for place in self.header.tensors.values() if len(place.shape) > 1)
        return kinds.most_common(1)[0][0]

    def model(self) -> nn.Module:
        """The whole model in fp32 with eager attention."""
        builder: Any = AutoModelForCausalLM
        model: nn.Module = builder.from_config(self.config, dtype=torch.float32)
        state = {name: self.get(name).float() for name in self.names()}
        with torch.no_grad():
            for name, parameter in [*model.named_parameters(), *model.named_buffers()]:
                if name in state:
                    parameter.copy_(state[name])
                elif name.endswith(OUTPUT_BIAS):
                    parameter.zero_()
        _scale_rope(model, self.header)
        return model.eval()


def read_tensor(header: Header, name: str) -> Tensor:
    """One tensor, dequantised to fp32."""
    import numpy

    gguf, place = gguf_package(), header.tensors[name]
    with header.file.open("rb") as stream:
        stream.seek(place.start)
        raw = numpy.frombuffer(stream.read(place.stop - place.start), dtype=numpy.uint8)
    rows = raw.reshape(*place.shape[:-1], -1)
    values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[place.kind])
    return torch.from_numpy(numpy.array(values, dtype=numpy.float32).reshape(place.shape))


def config_of(header: Header, kind: str) -> PreTrainedConfig:
    """A configuration from the file's keys alone."""
    own = header.own
    rows = header.tensors["token_embd.weight"].shape[0]
    tied = "output.weight" not in header.tensors
    if kind == "gpt2":
        sizes = {"n_embd": own("embedding_length"), "n_layer": own("block_count"), "n_head": own("attention.head_count")}
        more = {
            "n_positions": own("context_length"),
            "n_inner": own("feed_forward_length"),
            "layer_norm_epsilon": own("attention.layer_norm_epsilon"),
        }
        named: dict[str, Any] = {"vocab_size": rows, "tie_word_embeddings": tied, "bos_token_id": None, "eos_token_id": None}
        return CONFIG_MAPPING[kind](**named, **sizes, **more)
    heads = own("attention.head_count")
    options: dict[str, Any] = {
        "vocab_size": rows,
        "tie_word_embeddings": tied,
        "hidden_size": own("embedding_length"),
        "intermediate_size": own("feed_forward_length"),
        "num_hidden_layers": own("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": own("attention.head_count_kv", heads),
        "head_dim": own("attention.key_length") or own("embedding_length") // heads,
        "max_position_embeddings": own("context_length"),
        "rms_norm_eps": own("attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rope(header, kind),
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if kind in ("llama", "qwen3", "gemma2", "gemma3_text"):
        options["attention_bias"] = "blk.0.attn_q.bias" in header.tensors
    if kind == "llama":
        options["mlp_bias"] = "blk.0.ffn_gate.bias" in header.tensors
    return CONFIG_MAPPING[kind](**options, **_windows(header, kind, options["head_dim"], heads))


def _rope(header: Header, kind: str) -> dict[str, Any]:
    own = header.own
    plain: dict[str, Any] = {"rope_type": own("rope.scaling.type", "default"), "rope_theta": own("rope.freq_base", 10000.0)}
    if plain["rope_type"] != "default":
        plain["factor"] = own("rope.scaling.factor")
    if plain["rope_type"] == "yarn":
        plain["original_max_position_embeddings"] = own("rope.scaling.original_context_length")
    if kind == "phi3":
        plain["partial_rotary_factor"] = own("rope.dimension_count") / own("attention.key_length")
    if kind == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": own("rope.freq_base_swa", 10000.0)}
        return {"full_attention": plain, "sliding_attention": local}
    return plain


def _windows(header: Header, kind: str, size: int, heads: int) -> dict[str, Any]:
    """Gemma's windows, caps and query scale, as llama.cpp has them."""
    if kind not in ("gemma2", "gemma3_text"):
        return {"sliding_window": None} if kind in ("mistral", "phi3", "qwen2", "qwen3") else {}
    own, layers = header.own, header.own("block_count")
    largest = layers == {"gemma2": 46, "gemma3_text": 62}[kind]
    every = {"gemma2": 2, "gemma3_text": 6}[kind]
    return {
        "sliding_window": own("attention.sliding_window", 4096),
        "layer_types": ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(layers)],
        "query_pre_attn_scalar": own("embedding_length") // heads if largest else size,
        "attn_logit_softcapping": own("attn_logit_softcapping"),
        "final_logit_softcapping": own("final_logit_softcapping"),
    }


def _scale_rope(model: nn.Module, header: Header) -> None:
    """Divide the model's rotary frequencies by the factors in the file, as llama.cpp does."""
    factors = next((name for name in ("rope_freqs.weight", "rope_factors_short.weight") if name in header.tensors), None)
    if factors is None:
        return
    rotary: list[Any] = list(model.modules())
    for module in rotary:
        held = dict(module.named_buffers(recurse=False))
        for name in ("inv_freq", "original_inv_freq"):
            if name in held:
                held[name].div_(read_tensor(header, factors))
        if "inv_freq" in held:
            module.attention_scaling = float(header.own("rope.scaling.attn_factor", 1.0))


def words_of(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Token to id of the file's vocabulary, without the unused fillers."""
    types = metadata["tokenizer.ggml.token_type"]
    return {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"]) if types[i] != UNUSED}
