"""What every contender of a benchmark is given: the same weights, adapter, token ids and order."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from hone.core.types import Sequence
from hone.tuning import trainable
from hone.tuning.lora import Lora

SAMPLES_PER_STEP = 16
THIRTY_MILLION = {"vocab_size": 32_000, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 6}
TINY = {"vocab_size": 2_000, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of one contender in a process of its own."""

    name: str
    library: str
    """hone or trl."""
    steps: int
    warmup: int
    """First steps that are trained but not timed."""
    weights: str = "float32"
    """Type of the frozen weights."""
    autocast: bool = False
    """TRL only: bf16 autocast over the weights."""
    wide_adapter: bool = True
    """TRL only: adapters in fp32 (peft's own way) rather than in the type of the weights."""
    recompute: bool = False
    """TRL only: gradient checkpointing."""
    micro: int = 8
    """TRL only: samples of a micro-batch."""
    grouped: bool = False
    """TRL only: the samples of a step sorted by length, which saves padding."""
    padding_free: bool = False
    """TRL only: a micro-batch as one row."""
    quiet: bool = False
    """TRL only: no logs on the way."""
    budget: int = 2048
    """hone only: tokens of a micro-batch."""
    rank: int = 16
    learning_rate: float = 2e-4
    threads: int = 2


@dataclass(slots=True)
class Outcome:
    """What a run reports. `ends` are clock times: of the start, then after each optimiser step."""

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    final: dict[str, Tensor] = field(default_factory=dict)
    """The adapter after the last step, under hone's names."""


def samples(count: int, vocabulary: int, seed: int = 0) -> list[Sequence]:
    """Alpaca-like lengths (about 60 tokens of prompt, 80 of answer, log-normal), word-like frequencies (Zipf)."""
    rng = random.Random(seed)
    words = range(3, vocabulary)
    often = list(accumulate(1 / rank for rank, _ in enumerate(words, start=1)))
    out: list[Sequence] = []
    for _ in range(count):
        prompt, answer = _length(rng, 60, 0.6), _length(rng, 80, 0.8)
        out.append(Sequence(rng.choices(words, cum_weights=often, k=prompt + answer), [0.0] * prompt + [1.0] * answer))
    return out


def _length(rng: random.Random, mean: float, spread: float) -> int:
    return min(480, max(4, round(mean * rng.lognormvariate(-spread * spread / 2, spread))))


def build(sizes: dict[str, int], seed: int = 0) -> PreTrainedModel:
    """A random Qwen3-like model with tied embeddings."""
    torch.manual_seed(seed)
    heads = {"num_key_value_heads": sizes["num_attention_heads"], "head_dim": 64}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, max_position_embeddings=1024, tie_word_embeddings=True))


def initial_adapter(model: PreTrainedModel, rank: int, seed: int = 1) -> dict[str, Tensor]:
    """A fresh LoRA by hone's names; attaches it to the model that is given."""
    Lora(rank=rank, alpha=2.0 * rank).attach(model, seed=seed)
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def write(folder: Path, sizes: dict[str, int], *, count: int, rank: int) -> list[Sequence]:
    """Put the workload on disk, where each contender's process finds it."""
    logging.disable_progress_bar()
    model = build(sizes)
    model.save_pretrained(folder / "model")
    save_file(initial_adapter(model, rank), folder / "adapter.safetensors")
    data = samples(count, sizes["vocab_size"])
    (folder / "samples.json").write_text(json.dumps([[s.tokens, s.weights] for s in data]))
    return data


def read(folder: Path, plan: Plan) -> tuple[PreTrainedModel, dict[str, Tensor], list[Sequence]]:
    """Model, first adapter, and the samples of the plan's steps."""
    model = Qwen3ForCausalLM.from_pretrained(folder / "model", dtype=plan.weights)
    data = [Sequence(tokens, weights) for tokens, weights in json.loads((folder / "samples.json").read_text())]
    return model, load_file(folder / "adapter.safetensors"), data[: plan.steps * SAMPLES_PER_STEP]
