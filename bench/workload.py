"""What every contender of a benchmark is given: the same weights, adapter, token ids and order."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from hone.core.types import Group, Sequence
from hone.tuning import trainable
from hone.tuning.lora import Lora

THIRTY_MILLION = {"vocab_size": 32_000, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 10, "num_attention_heads": 6}
TINY = {"vocab_size": 2_000, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
ANSWERS = {"sft": 1, "dpo": 2, "grpo": 8}
"""Sequences of a group: an answer, a pair, the answers to one prompt."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run of one contender in a process of its own."""

    name: str
    library: str
    """hone or trl."""
    method: str
    """sft, dpo or grpo."""
    steps: int
    warmup: int
    """First steps that are trained but not timed."""
    groups: int
    """Groups of an optimiser step."""
    weights: str = "float32"
    """Type of the frozen weights."""
    autocast: bool = False
    """TRL only: bf16 autocast over the weights."""
    wide_adapter: bool = True
    """TRL only: adapters in fp32 (peft's own way) rather than in the type of the weights."""
    recompute: bool = False
    """TRL only: gradient checkpointing."""
    micro: int = 8
    """TRL only: rows that TRL takes at a time."""
    grouped: bool = False
    """TRL only: the samples of a step sorted by length, which saves padding."""
    padding_free: bool = False
    """TRL only: a micro-batch as one row."""
    quiet: bool = False
    """TRL only: no logs on the way."""
    cached: bool = False
    """DPO: the reference's log-probabilities computed once, before the clock starts."""
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


def groups(method: str, count: int, vocabulary: int, seed: int = 0) -> list[Group]:
    """Word-like frequencies (Zipf). sft has Alpaca-like lengths (about 60 tokens of prompt, 80 of answer, log-normal);
    dpo 512 of prompt and 128 of answer, grpo 256 and 128, answers a little shorter or longer."""
    rng = random.Random(seed)
    words = range(3, vocabulary)
    often = list(accumulate(1 / rank for rank, _ in enumerate(words, start=1)))
    out: list[Group] = []
    for _ in range(count):
        prompt = rng.choices(words, cum_weights=often, k=_length(rng, 60, 0.6) if method == "sft" else {"dpo": 512, "grpo": 256}[method])
        group = []
        for _ in range(ANSWERS[method]):
            answer = rng.choices(words, cum_weights=often, k=_length(rng, 80, 0.8) if method == "sft" else rng.randint(112, 144))
            group.append(Sequence(prompt + answer, [0.0] * len(prompt) + [1.0] * len(answer)))
        if method == "grpo":
            _judge(rng, group)
        out.append(tuple(group))
    return out


def _length(rng: random.Random, mean: float, spread: float) -> int:
    return min(480, max(4, round(mean * rng.lognormvariate(-spread * spread / 2, spread))))


def _judge(rng: random.Random, group: list[Sequence]) -> None:
    """Made-up rewards, as advantages centred in the group."""
    rewards = [rng.random() for _ in group]
    mean = sum(rewards) / len(rewards)
    for sequence, reward in zip(group, rewards, strict=True):
        sequence.facts["advantage"] = [reward - mean] * len(sequence.tokens)


def build(sizes: dict[str, int], seed: int = 0) -> PreTrainedModel:
    """A random Qwen3-like model with tied embeddings."""
    torch.manual_seed(seed)
    heads = {"num_key_value_heads": sizes["num_attention_heads"], "head_dim": 64}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, max_position_embeddings=1024, tie_word_embeddings=True))


def initial_adapter(model: PreTrainedModel, rank: int, seed: int = 1) -> dict[str, Tensor]:
    """A fresh LoRA by hone's names; attaches it to the model that is given."""
    Lora(rank=rank, alpha=2.0 * rank).attach(model, seed=seed)
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


@torch.no_grad()
def _remember(model: PreTrainedModel, data: list[Group]) -> None:
    """What the writer of the answers thought of its tokens: here the model before training."""
    for sequence in (s for group in data for s in group):
        tokens = torch.tensor(sequence.tokens)
        logp = model(input_ids=tokens[None]).logits[0].log_softmax(-1)
        sequence.facts["old_logp"] = [0.0, *logp[:-1].gather(1, tokens[1:, None])[:, 0].tolist()]


def write(folder: Path, sizes: dict[str, int], method: str, *, count: int, rank: int) -> list[Group]:
    """Put the workload on disk, where each contender's process finds it."""
    logging.disable_progress_bar()
    model = build(sizes)
    model.save_pretrained(folder / "model")
    data = groups(method, count, sizes["vocab_size"])
    if method == "grpo":
        _remember(model, data)
    save_file(initial_adapter(model, rank), folder / "adapter.safetensors")
    (folder / "groups.json").write_text(json.dumps([[_plain(s) for s in group] for group in data]))
    return data


def _plain(sequence: Sequence) -> dict[str, Any]:
    return {key: value for key, value in asdict(sequence).items() if key != "origin"}


def read(folder: Path, plan: Plan) -> tuple[PreTrainedModel, dict[str, Tensor], list[Group]]:
    """Model, first adapter, and the groups of the plan's steps."""
    model = Qwen3ForCausalLM.from_pretrained(folder / "model", dtype=plan.weights)
    data = [tuple(Sequence(**fields) for fields in group) for group in json.loads((folder / "groups.json").read_text())]
    return model, load_file(folder / "adapter.safetensors"), data[: plan.steps * plan.groups]
