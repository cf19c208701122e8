"""Too little memory in the middle of a step: the micro-batch is split, the gradient is the same, and the limit is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hone.core.errors import HoneError
from hone.core.events import Events
from hone.core.types import Loss, Signals
from hone.data.batching import micro_batches
from hone.data.offline import Offline
from hone.objectives import OBJECTIVES, Objective
from hone.train.engine import Engine
from hone.train.hooks import Shortage
from hone.train.loop import train
from hone.train.settings import OptimSettings
from hone.train.shortage import is_shortage
from hone.tuning import METHODS
from tests import nets

SFT = OBJECTIVES["sft"]
SAYINGS: list[Callable[[], BaseException]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    ),
    lambda: MemoryError(),
]


class Poor(torch.autograd.Function):
    """The identity, for which there is too little memory in the backward."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor, error: BaseException) -> torch.Tensor:
        ctx.error = error  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        raise ctx.error  # type: ignore[attr-defined]


def poor(most: int, saying: Callable[[], BaseException], *, backward: bool = False, unit: str = "token") -> Objective:
    """SFT on a machine that has room for `most` tokens."""

    def loss(s: Signals) -> Loss:
        asked.append(len(s.batch.tokens_T))
        if len(s.batch.tokens_T) <= most:
            return SFT(s)
        if not backward:
            raise saying()
        made = SFT(s)
        return Loss(made.total + 0 * Poor.apply(s.logp, saying()).sum(), made.metrics)

    asked: list[int] = []
    made = Objective("poor", loss, "logp", unit)  # type: ignore[arg-type]
    ASKED[id(made)] = asked
    return made


ASKED: dict[int, list[int]] = {}


def engine(method: str = "lora", dtype: torch.dtype = torch.float32) -> Engine:
    return Engine(nets.policy(nets.qwen3, METHODS[method](), dtype), OptimSettings(learning_rate=1e-2))


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize("backward", [False, True])
def test_the_gradient_of_the_split_step_is_the_same(saying: Callable[[], BaseException], backward: bool) -> None:
    groups = nets.singles(12)
    whole, split = engine(), engine()
    expected = whole.forward_backward(micro_batches(groups, 10**9), SFT)
    tally = split.forward_backward(micro_batches(groups, 10**9), poor(70, saying, backward=backward))
    assert split.limit is not None and 0 < split.limit <= 70
    assert tally.total == expected.total and tally.tokens == expected.tokens
    assert tally.means()["loss"] == pytest.approx(expected.means()["loss"], rel=1e-6)
    for a, b in zip(whole.masters.gradients(), split.masters.gradients(), strict=True):
        assert (a - b).norm() <= 1e-5 * a.norm()


def test_a_smaller_type_leaves_nothing_of_the_failed_backward() -> None:
    groups = nets.singles(6)
    one = engine("full", torch.bfloat16)
    one.forward_backward(micro_batches(groups, 10**9), poor(70, SAYINGS[0], backward=True))
    assert all(parameter.grad is None for parameter, master in one.masters.pairs if parameter is not master)


def test_the_limit_holds_for_the_steps_that_follow() -> None:
    one, objective = engine(), poor(70, SAYINGS[1])
    batches = micro_batches(nets.singles(12), 10**9)
    one.forward_backward(batches, objective)
    one.forget()
    tried = ASKED[id(objective)]
    tried.clear()
    one.forward_backward(batches, objective)
    assert max(tried) <= 70, "what was refused once is not tried again"


def test_pairs_stay_together_and_one_that_is_too_large_is_refused() -> None:
    groups = nets.pairs(4)
    one, objective = engine(), poor(60, SAYINGS[0], unit="group")
    one.forward_backward(micro_batches(groups, 10**9), objective)
    smallest = max(len(micro_batches([group], 10**9)[0].tokens_T) for group in groups)
    one.forget()
    with pytest.raises(HoneError) as caught:
        one.forward_backward(micro_batches(groups, 10**9), poor(smallest - 1, SAYINGS[0], unit="group"))
    assert caught.value.code == "M091" and "test:" in caught.value.where


def test_other_errors_and_gradients_from_before_are_not_touched() -> None:
    one = engine()
    with pytest.raises(RuntimeError, match="shapes"):
        one.forward_backward(micro_batches(nets.singles(4), 10**9), poor(1, lambda: RuntimeError("shapes do not match")))
    one.forget()
    one.forward_backward(micro_batches(nets.singles(4), 10**9), SFT)
    with pytest.raises(MemoryError):
        one.forward_backward(micro_batches(nets.singles(4), 10**9), poor(1, MemoryError))
    assert is_shortage(MemoryError()) and not is_shortage(ValueError("out of memory"))


def test_it_is_written_down_for_the_resumed_run(tmp_path: Path) -> None:
    events = Events(tmp_path)
    hook, one = Shortage(tmp_path, events), engine()
    assert hook.recall() is None
    state = train(one, Offline(nets.singles(12), step_groups=6, budget=10**9), poor(60, SAYINGS[0]), (hook,))
    assert state.step == 2
    assert json.loads((tmp_path / "memory.json").read_text()) == {"largest_micro_batch": one.limit}
    assert Shortage(tmp_path, events).recall() == one.limit
    said = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["largest_micro_batch"] for event in said if event["kind"] == "out_of_memory"][-1] == one.limit
