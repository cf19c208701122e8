"""A tiny policy that writes for itself: what the tests of rollouts share."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from hone.core.types import Message, Origin
from hone.models.kernels.fuse import fuse
from hone.models.policy import Policy
from hone.rollout.credit import CREDITS
from hone.rollout.draft import single_turn
from hone.rollout.on_policy import Crew, OnPolicy
from hone.rollout.prompts import Prompt
from hone.rollout.reading import reader
from hone.rollout.rewards import Panel, Written
from hone.rollout.rewards.panel import Named
from hone.rollout.sample import Sampler
from hone.rollout.settings import Drawing, RolloutSettings
from hone.train.engine import Engine
from hone.train.settings import OptimSettings
from hone.tuning import Tuning
from hone.tuning.lora import Lora

END = 1


def gpt2(seed: int = 0) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=384, n_embd=32, n_layer=2, n_head=4, n_positions=256, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
            bos_token_id=2, eos_token_id=END,
        )  # fmt: skip
        return GPT2LMHeadModel(config).eval()


def lively(model: PreTrainedModel) -> PreTrainedModel:
    """Weights large enough for answers that differ from prompt to prompt."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def engine(model: PreTrainedModel, tuning: Tuning | None = None, *, needs: str = "", rate: float = 1e-2) -> Engine:
    tuning = tuning or Lora(rank=4)
    fuse(model)
    tuning.attach(model, seed=0)
    return Engine(Policy.of(model, tuning).grow(needs), OptimSettings(learning_rate=rate, schedule="constant", warmup_ratio=0.0))


def prompts(count: int = 6, seed: int = 0) -> list[Prompt]:
    rng = random.Random(seed)
    lengths = [rng.randint(2, 14) for _ in range(count)]
    return [
        Prompt((Message("user", f"question {i}"),), [rng.randrange(3, 384) for _ in range(length)], {"answer": str(i)}, Origin("p", i + 1))
        for i, length in enumerate(lengths)
    ]


def even(answers: Sequence[Written]) -> list[float]:
    """A reward with contrast: the share of even characters' codes."""
    return [sum(ord(c) % 2 == 0 for c in a.text) / max(1, len(a.text)) for a in answers]


def source(
    made: Engine,
    tokenizer: Any,
    *,
    reward: Callable[..., list[float]] = even,
    steps: int = 3,
    step_prompts: int = 2,
    count: int = 6,
    **settings: Any,
) -> OnPolicy:
    """On-policy sequences for an engine; `settings` are those of a rollout."""
    sampling = Drawing(max_new_tokens=settings.pop("longest", 8), **settings.pop("sampling", {}))
    how = RolloutSettings(prompts="p", sampling=sampling, **{"group_size": 3, **settings})
    named = how.credit if isinstance(how.credit, str) else dict(how.credit)
    scheme = CREDITS[named] if isinstance(named, str) else CREDITS[named.pop("name")].bind(named)
    crew = Crew(
        pen=single_turn(Sampler(made.policy.model, tokenizer), (END,)),
        panel=Panel([Named("even", 1.0, reward)]),
        credit=scheme,
        read=reader(made.policy, budget=200),
        version=lambda: made.taken,
    )
    return OnPolicy(crew, prompts(count), how, step_prompts=step_prompts, total_steps=steps, budget=150, seed=5)
