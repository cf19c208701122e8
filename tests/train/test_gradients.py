"""The gradient of an optimiser step is one number, however it is computed: promise number one of the loop."""

from __future__ import annotations

from itertools import cycle
from threading import Lock
from typing import Any

import pytest
import torch

from hone.core.types import Batch, Group
from hone.core.world import World
from hone.data.batching import micro_batches
from hone.objectives import OBJECTIVES, Objective
from hone.train.engine import Engine
from hone.train.settings import OptimSettings
from hone.tuning.full import Full
from hone.tuning.lora import Lora
from tests import nets
from tests.ranks import together

BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}
TUNINGS = {"full": Full(), "lora": Lora(rank=4)}
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("sft", {"focus": 1.0}),
    ("sft", {"label_smoothing": 0.1}),
    ("dpo", {"divergence": "alpha", "length_normalised": True}),
    ("aot", {"paired": False}),
    ("classifier", {"classes": ("a", "b", "c")}),
    ("distill", {"beta": 0.5, "temperature": 2.0, "imitation": 0.3}),
    ("distill", {"beta": 1.0, "top_k": 5}),
]
"""Settings that change what is asked of the model, beside every objective as it is."""
CASES: dict[str, Objective] = dict(OBJECTIVES.items()) | {
    f"{name} {settings}": OBJECTIVES[name].bind(**settings) for name, settings in VARIANTS
}
MODEL_OF = dict(zip(CASES, cycle(nets.MODELS), strict=False))
SEEDED = Lock()
"""Held where models are drawn at random, for ranks that are threads share the generator."""
MIXED = nets.singles() + nets.pairs()


def engine_of(model: str, tuning: str, dtype: torch.dtype, objective: Objective, world: World | None = None) -> Engine:
    policy = nets.asked(nets.policy(nets.MODELS[model], TUNINGS[tuning], dtype), objective)
    if tuning == "full" and "ref_logp" in objective.needs:
        policy.tuning = nets.Shadow(policy.model)
    return Engine(policy, OptimSettings(learning_rate=1e-3), world=world)


def batches_of(objective: Objective, groups: list[Group], budget: int, *, share: bool = True) -> list[Batch]:
    """A step's batches, with those beside it that an objective asks for."""
    found = micro_batches(groups, budget, share=share)
    if objective.aside is not None:
        beside = [objective.aside(one, groups[(i + 1) % len(groups)]) for i, one in enumerate(groups)]
        found += micro_batches(beside, budget, share=share, aside=True)
    return found


def gradient(engine: Engine, objective: Objective, groups: list[Group], budget: int, *, share: bool = True) -> tuple[torch.Tensor, float]:
    tally = engine.forward_backward(batches_of(objective, groups, budget, share=share), objective)
    engine.gradient_norm(tally)
    whole = torch.cat([g.flatten() for g in engine.masters.gradients()])
    engine.forget()
    return whole, tally.means()["loss"]


def check_layouts(engine: Engine, objective: Objective, groups: list[Group], bound: float) -> None:
    assert engine.policy.packed
    whole, loss = gradient(engine, objective, groups, 10**9)
    assert whole.norm() > 0
    ways = {
        "micro-batches": gradient(engine, objective, groups, 70),
        "separate rows": gradient(engine, objective, groups, 10**9, share=False),
    }
    engine.policy.packed = False
    ways["padded"] = gradient(engine, objective, groups, 10**9)
    for way, (other, other_loss) in ways.items():
        assert (other - whole).norm() <= bound * whole.norm(), way
        assert abs(other_loss - loss) <= bound * max(abs(loss), 1e-3), way


@pytest.mark.parametrize("dtype", BOUND, ids=["fp64", "fp32"])
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("name", CASES)
def test_gradient_does_not_depend_on_the_layout(name: str, tuning: str, dtype: torch.dtype) -> None:
    objective = CASES[name]
    check_layouts(engine_of(MODEL_OF[name], tuning, dtype, objective), objective, nets.for_objective(objective), BOUND[dtype])


@pytest.mark.parametrize("dtype", BOUND, ids=["fp64", "fp32"])
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("model", nets.MODELS)
def test_nor_on_the_architecture(model: str, tuning: str, dtype: torch.dtype) -> None:
    check_layouts(engine_of(model, tuning, dtype, OBJECTIVES["sft"]), OBJECTIVES["sft"], MIXED, BOUND[dtype])


def test_micro_batches_are_really_many() -> None:
    assert len(micro_batches(MIXED, 70)) >= 5
    assert len(micro_batches(MIXED, 10**9)) == 1


def test_two_ranks_equal_one() -> None:
    alone = every_gradient(World())
    for found in together(2, every_gradient):
        assert found.keys() == alone.keys()
        for case, whole in alone.items():
            assert (found[case] - whole).norm() <= 1e-10 * whole.norm(), case


def every_gradient(world: World) -> dict[str, torch.Tensor]:
    """Loss and gradient of every objective, in fp64, with the tunings in turn."""
    found = {}
    for (name, objective), tuning in zip(CASES.items(), cycle(TUNINGS), strict=False):
        with SEEDED:
            engine, groups = engine_of("qwen3", tuning, torch.float64, objective, world), nets.for_objective(objective)
        whole, loss = gradient(engine, objective, groups, 70)
        found[f"{name} {tuning}"] = torch.cat([whole, torch.tensor([loss], dtype=torch.float64)])
    return found


def test_a_group_larger_than_the_budget_is_not_split() -> None:
    big: Group = nets.pairs(1)[0]
    assert len(micro_batches([big], 4)) == 1
