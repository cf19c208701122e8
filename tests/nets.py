"""Tiny models and sequences that many tests share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from hone.core.types import Group, Origin, Sequence
from hone.models.kernels.fuse import fuse
from hone.models.policy import Policy
from hone.objectives import Objective
from hone.tuning import Tuning, trainable
from hone.tuning.base import Untouched
from hone.tuning.full import Full

SHAPE = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}


def llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, bos_token_id=1, eos_token_id=2))


def qwen3() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True))


def gpt2() -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=128,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return GPT2LMHeadModel(config)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {"llama": llama, "qwen3": qwen3, "gpt2": gpt2}


def policy(make: Callable[[], PreTrainedModel], tuning: Tuning, dtype: torch.dtype = torch.float32, *, moved: bool = True) -> Policy:
    """A policy of a random model; `moved` leaves the start point, where adapters are zero."""
    torch.manual_seed(0)
    model = make().to(dtype)
    fuse(model)
    tuning.attach(model, seed=1)
    if moved:
        generator = torch.Generator().manual_seed(2)
        for parameter in trainable(model).values():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return Policy.of(model, tuning)


def sequence(rng: random.Random, length: int, row: int = 0) -> Sequence:
    """Random tokens; the first third is a prompt, and weights differ."""
    weights = [0.0 if i < length // 3 else rng.choice([1.0, 1.0, 0.5]) for i in range(length)]
    return Sequence([rng.randrange(3, 128) for _ in range(length)], weights, origin=Origin("test", row))


def singles(count: int = 10, seed: int = 0) -> list[Group]:
    rng = random.Random(seed)
    return [(sequence(rng, rng.randint(2, 40), row),) for row in range(1, count + 1)]


def pairs(count: int = 4, seed: int = 1) -> list[Group]:
    """Pairs that share a prompt, some of whose tokens have weight too."""
    rng, groups = random.Random(seed), []
    for row in range(1, count + 1):
        prompt = sequence(rng, rng.randint(9, 20), row)
        answers = [sequence(rng, rng.randint(2, 15), row) for _ in range(2)]
        groups.append(tuple(Sequence(prompt.tokens + a.tokens, prompt.weights + a.weights, origin=a.origin) for a in answers))
    return groups


def for_objective(objective: Objective, seed: int = 3) -> list[Group]:
    """Groups such as an objective learns from, made from what it declares: the shape of its data, and its facts."""
    rng = random.Random(seed)
    made = {"pair": pairs(5), "label": pairs(2) + singles(4, seed=5)}.get(objective.data, singles(8) + pairs(3))
    for group in made:
        for one in group:
            one.facts = {fact[:-2]: _fact(rng, fact, len(one.tokens)) for fact in objective.facts.split()}
    return [group for group in made if all(one.learned for one in group)] if objective.unit == "sequence" else made


def _fact(rng: random.Random, fact: str, length: int) -> float | list[float]:
    """A number for each sequence (_S) or each token (_N); labels and classes are 0 or 1."""
    draw = (lambda: float(rng.randrange(2))) if "label" in fact or "class" in fact else (lambda: rng.gauss(0, 1))
    return draw() if fact.endswith("_S") else [draw() for _ in range(length)]


def asked(policy: Policy, objective: Objective) -> Policy:
    """The policy with all that an objective needs: heads, moved a little from where they start, and a teacher."""
    policy.grow(objective.needs)
    generator = torch.Generator().manual_seed(4)
    for parameter in policy.heads.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    if "divergence" in objective.needs:
        policy.teacher = _teacher(next(policy.model.parameters()).dtype)
    return policy


@cache
def _teacher(dtype: torch.dtype) -> Policy:
    torch.manual_seed(9)
    model = llama().to(dtype)
    with torch.no_grad():
        model.lm_head.weight *= 20  # as sure of itself as a trained model
    tuning = Untouched()
    tuning.attach(model, seed=0)
    return Policy.of(model, tuning)


class Shadow(Full):
    """Full tuning whose base is still at hand, as a copy of the weights moved a little: a reference for tests."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        base = {n: p.detach() + 0.02 * torch.randn(p.shape, generator=generator).to(p.dtype) for n, p in model.named_parameters()}
        object.__setattr__(self, "base", base)

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[None]:
        own = {name: parameter.data for name, parameter in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.data = self.base[name]
        yield
        for name, parameter in model.named_parameters():
            parameter.data = own[name]
