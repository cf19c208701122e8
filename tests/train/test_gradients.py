"""The gradient of an optimiser step is one number, however it is computed: promise number one of the loop."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hone.core.types import Group
from hone.data.batching import micro_batches
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine
from hone.train.settings import OptimSettings
from hone.tuning.full import Full
from hone.tuning.lora import Lora
from tests import nets

BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}
TUNINGS = {"full": Full(), "lora": Lora(rank=4)}
GROUPS = nets.singles() + nets.pairs()


def gradient(engine: Engine, name: str, budget: int, *, share: bool = True) -> tuple[torch.Tensor, float]:
    tally = engine.forward_backward(micro_batches(GROUPS, budget, share=share), OBJECTIVES[name])
    engine.gradient_norm(tally)
    whole = torch.cat([g.flatten() for g in engine.masters.gradients()])
    engine.forget()
    return whole, tally.means()["loss"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("model", nets.MODELS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_does_not_depend_on_the_layout(name: str, model: str, tuning: str, dtype: torch.dtype) -> None:
    engine = Engine(nets.policy(nets.MODELS[model], TUNINGS[tuning], dtype), OptimSettings(learning_rate=1e-3))
    assert engine.policy.packed
    whole, loss = gradient(engine, name, 10**9)
    assert whole.norm() > 0
    ways = {"micro-batches": gradient(engine, name, 70), "separate rows": gradient(engine, name, 10**9, share=False)}
    engine.policy.packed = False
    ways["padded"] = gradient(engine, name, 10**9)
    for way, (other, other_loss) in ways.items():
        assert (other - whole).norm() <= BOUND[dtype] * whole.norm(), way
        assert abs(other_loss - loss) <= BOUND[dtype] * abs(loss), way


def test_micro_batches_are_really_many() -> None:
    assert len(micro_batches(GROUPS, 70)) >= 5
    assert len(micro_batches(GROUPS, 10**9)) == 1


@pytest.mark.parametrize("tuning", TUNINGS)
def test_two_ranks_equal_one(tuning: str, tmp_path: Path) -> None:
    engine = Engine(nets.policy(nets.qwen3, TUNINGS[tuning], torch.float64), OptimSettings(learning_rate=1e-3))
    whole, loss = gradient(engine, "sft", 70)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = "from tests.train.test_gradients import one_rank; import sys; one_rank(*sys.argv[1:])"
    env = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, tuning, str(tmp_path / f"{rank}.json")],
            env=env | {"RANK": str(rank)},
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        other = torch.tensor(found["gradient"], dtype=torch.float64)
        assert (other - whole).norm() <= 1e-10 * whole.norm()
        assert abs(found["loss"] - loss) <= 1e-10 * abs(loss)


def one_rank(tuning: str, out: str) -> None:
    """What each of the two processes does."""
    from hone.core.world import World

    torch.set_num_threads(1)
    engine = Engine(nets.policy(nets.qwen3, TUNINGS[tuning], torch.float64), OptimSettings(learning_rate=1e-3), world=World.join())
    whole, loss = gradient(engine, "sft", 70)
    Path(out).write_text(json.dumps({"gradient": whole.tolist(), "loss": loss}))
    torch.distributed.destroy_process_group()


def test_a_group_larger_than_the_budget_is_not_split() -> None:
    big: Group = nets.pairs(1)[0]
    assert len(micro_batches([big], 4)) == 1
