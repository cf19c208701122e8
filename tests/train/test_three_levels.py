"""A system prompt, the questions under it and several answers to each, computed once each, are what separate rows are: token by token."""

from __future__ import annotations

import random

import pytest
import torch

from hone.core.types import Batch, Group, Sequence
from hone.data.batching import pack
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine
from hone.train.settings import OptimSettings
from hone.tuning.full import Full
from hone.tuning.lora import Lora
from tests import nets

BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}


def dialogues(seed: int = 0) -> list[Group]:
    """Four questions under one system prompt, with two answers each, of unlike lengths; also some words of the questions are learned."""
    rng = random.Random(seed)

    def words(low: int, high: int) -> list[int]:
        return [rng.randrange(3, 128) for _ in range(rng.randint(low, high))]

    system, groups = words(30, 30), []
    for _ in range(4):
        question = words(12, 20)
        answers = [words(3, 25) for _ in range(2)]
        asked = [0.0] * (len(system) + len(question) - 2) + [0.5, 0.5]
        groups.append(tuple(Sequence([*system, *question, *answer], [*asked, *[1.0] * len(answer)]) for answer in answers))
    return groups


def depth(batch: Batch) -> int:
    found: list[int] = []
    for _, _, parent in batch.segments:
        found.append(1 if parent is None or parent < 0 else 1 + found[parent])
    return max(found)


@pytest.mark.parametrize("dtype", BOUND, ids=["fp64", "fp32"])
@pytest.mark.parametrize("tuning", [Full(), Lora(rank=4)], ids=["full", "lora"])
@pytest.mark.parametrize("model", nets.MODELS)
def test_every_token_and_the_gradient_agree_with_separate_rows(model: str, tuning: Full | Lora, dtype: torch.dtype) -> None:
    engine, objective = Engine(nets.policy(nets.MODELS[model], tuning, dtype), OptimSettings(learning_rate=1e-3)), OBJECTIVES["sft"]
    shared, apart = pack(dialogues()), pack(dialogues(), share=False)
    assert depth(shared) == 3 and depth(apart) == 1 and len(shared.tokens_T) < 0.6 * len(apart.tokens_T)
    said, gradients = [], []
    for batch in (shared, apart):
        with torch.no_grad():
            said.append(engine.policy.signals(batch, "logp").logp)
        engine.gradient_norm(engine.forward_backward([batch], objective))
        gradients.append(torch.cat([g.flatten() for g in engine.masters.gradients()]))
        engine.forget()
    assert (said[0] - said[1]).abs().max() <= BOUND[dtype]
    assert (gradients[0] - gradients[1]).norm() <= BOUND[dtype] * gradients[1].norm()
