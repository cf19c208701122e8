"""Tiny tuned models of several families with their certificates, made without training: the weights are simply moved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hone.data.chat import ChatTemplate
from hone.export.proof.golden import Golden
from hone.models.load import load
from hone.models.policy import Policy
from hone.plan.packed import Scheme
from hone.recipe.build import Opened, tuned
from hone.recipe.certificate import of_opened
from hone.tuning import METHODS
from hone.tuning.base import trainable

SHAPE: dict[str, Any] = {
    "vocab_size": 384, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
HEAD = {"head_dim": 16}
GEMMA = SHAPE | HEAD | {"query_pre_attn_scalar": 16, "sliding_window": 64}
GPT2 = {"vocab_size": 384, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "bos_token_id": None, "eos_token_id": 1}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True, rope_parameters=LLAMA3)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE | HEAD | {"head_dim": 24}, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE | HEAD, tie_word_embeddings=True)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA)),
    "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA | {"num_hidden_layers": 6, "hidden_size": 32, "intermediate_size": 64})),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5})),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2)),
}  # fmt: skip


def make_base(folder: Path, family: str, tokenizer: Any, *, seed: int = 0) -> Path:
    """A random model whose norms and biases are not the ones and zeros that would hide mistakes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FAMILIES[family]().float()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tune(base: Path, folder: Path, method: str = "lora", *, scheme: Scheme | None = None, **settings: Any) -> Golden:
    """A run's artifact and certificate: `folder`/adapter or `folder`/model, and golden.json beside it."""
    loaded = load(base, dtype="float32", device="cpu", scheme=scheme)
    tuning = METHODS[method](**settings)
    policy: Policy = tuned(loaded, tuning, seed=1)
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(policy.model).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    template = ChatTemplate.of(loaded.tokenizer)
    golden = of_opened(Opened(policy, loaded.tokenizer, template, {}), base=loaded.base)
    golden.save(folder)
    artifact = folder / tuning.about.artifact
    tuning.save(policy.model, artifact, base=loaded.base)
    words = copy.deepcopy(loaded.tokenizer)
    words.chat_template = template.stored
    words.save_pretrained(artifact)
    return golden
