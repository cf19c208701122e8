"""The same twenty steps as an independent implementation: TRL's SFTTrainer with peft's LoRA."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from bench import with_hone
from bench.workload import Plan, initial_adapter
from hone.core.types import Group, Sequence
from tests import nets

pytest.importorskip("trl", reason="trl is in the dev extra")
pytest.importorskip("peft", reason="peft is in the dev extra")

STEPS, GROUPS = 20, 16


def _data() -> list[Group]:
    rng = random.Random(0)
    often = [1 / rank for rank in range(1, 126)]
    out = []
    for _ in range(STEPS * GROUPS):
        prompt, answer = rng.randint(1, 12), rng.randint(1, 20)
        out.append((Sequence(rng.choices(range(3, 128), often, k=prompt + answer), [0.0] * prompt + [1.0] * answer),))
    return out


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_losses_and_gradients_equal_trl(name: str) -> None:
    from bench import with_trl

    torch.manual_seed(0)
    theirs, ours = nets.MODELS[name](), nets.MODELS[name]()
    ours.load_state_dict(theirs.state_dict())
    spare = nets.MODELS[name]()
    adapter = initial_adapter(spare, rank=4)
    sizes = {"method": "sft", "steps": STEPS, "warmup": 0, "groups": GROUPS}
    plan = Plan(name="hone", library="hone", budget=150, rank=4, learning_rate=5e-3, threads=1, **sizes)
    hone = with_hone.run(ours, adapter, _data(), plan)
    trl = with_trl.run(theirs, adapter, _data(), replace(plan, name="trl", library="trl", micro=4, quiet=True))
    assert len(hone.losses) == len(trl.losses) == STEPS
    assert hone.losses[-1] < hone.losses[0] - 0.05, "nothing was learned"
    for step, (a, b) in enumerate(zip(hone.losses, trl.losses, strict=True), start=1):
        assert abs(a - b) <= 1e-4, (step, a, b)
    for step, (a, b) in enumerate(zip(hone.norms, trl.norms, strict=True), start=1):
        assert a > 0, step
        assert abs(a - b) <= 1e-3 * b, (step, a, b)
