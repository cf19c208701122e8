"""The worst comes first, and a rehearsal leaves no trace: weights, moments, gradients and random numbers stay bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hone.core.errors import HoneError
from hone.core.types import Loss, Signals
from hone.data.offline import Offline
from hone.objectives import OBJECTIVES, Objective
from hone.train.engine import Engine
from hone.train.loop import train
from hone.train.rehearsal import Foreseeable, rehearse, rehearse_save
from hone.train.settings import OptimSettings
from hone.tuning.lora import Lora
from tests import nets

SFT = OBJECTIVES["sft"]


def engine() -> Engine:
    return Engine(nets.policy(nets.qwen3, Lora(rank=2, dropout=0.2)), OptimSettings(learning_rate=1e-2))


def everything(one: Engine) -> list[torch.Tensor]:
    tensors = one.save()
    return (
        [tensors[name].clone() for name in sorted(tensors)]
        + [p.detach().clone() for p in one.policy.model.parameters()]
        + [torch.get_rng_state()]
    )


def monster(at: int, of: int = 50) -> Offline:
    """One long row near the end of the data, which is read in order."""
    rng = random.Random(0)
    groups = [(nets.sequence(rng, 12, row),) for row in range(1, of + 1)]
    groups[at] = (nets.sequence(rng, 120, at + 1),)
    return Offline(groups, step_groups=2, budget=40, shuffle=False)


def test_the_monster_row_comes_first() -> None:
    source = monster(at=49)
    assert isinstance(source, Foreseeable)
    (worst,) = source.worst()
    assert [origin.row for origin in worst.origins] == [50]
    lengths: list[int] = []

    def seen(s: Signals) -> Loss:
        lengths.append(len(s.batch.tokens_T))
        return SFT(s)

    objective = Objective("seen", seen, "logp", "token")
    one = engine()
    rehearse(one, source.worst(), objective)
    train(one, source, objective)
    assert lengths[0] == max(lengths) == 120


def test_what_will_not_fit_fails_before_the_first_step() -> None:
    def poor(s: Signals) -> Loss:
        if len(s.batch.tokens_T) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return SFT(s)

    one, before = engine(), 0
    with pytest.raises(HoneError) as caught:
        rehearse(one, monster(at=49).worst(), Objective("poor", poor, "logp", "token"))
    assert caught.value.code == "M091" and "test:50" in caught.value.where
    assert before == len(one.optimizer.state)


@pytest.mark.parametrize("started", [False, True])
def test_no_trace_is_left(started: bool) -> None:
    one, source = engine(), monster(at=3, of=8)
    if started:
        train(one, source, SFT)
    before, mode = everything(one), one.policy.model.training
    asked: list[bool] = []
    rehearse(one, source.worst(), SFT, evaluate=lambda: asked.append(one.policy.model.training))
    after = everything(one)
    assert len(before) == len(after) and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert one.policy.model.training == mode and asked == [False]
    assert all(p.grad is None for p in one.policy.model.parameters())


def test_a_rehearsed_run_is_the_run() -> None:
    plain, rehearsed, source = engine(), engine(), monster(at=3, of=8)
    train(plain, source, SFT, seed=5)
    rehearse(rehearsed, source.worst(), SFT)
    train(rehearsed, source, SFT, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(everything(plain)[:-1], everything(rehearsed)[:-1], strict=True))


def test_a_save_is_tried_and_removed(tmp_path: Path) -> None:
    one, seen = engine(), list[str]()

    def write(place: Path) -> None:
        seen.extend(load_file(place.parent / "tensors.safetensors"))

    assert rehearse_save(one, tmp_path, write)
    assert sorted(seen) == sorted(one.save())
    assert list(tmp_path.iterdir()) == []


def test_a_failing_save_is_told_before_the_run(tmp_path: Path) -> None:
    def write(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        rehearse_save(engine(), tmp_path, write)
    assert list(tmp_path.iterdir()) == []
