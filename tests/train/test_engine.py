"""The four verbs: what a step leaves behind, what is saved, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hone.core.types import Sequence
from hone.data.batching import micro_batches, pack
from hone.data.offline import Offline
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine, Stopped
from hone.train.loop import BaseHook, State, train
from hone.train.settings import OptimSettings
from hone.tuning.base import Tuning
from hone.tuning.full import Full
from hone.tuning.lora import Lora
from tests import nets

SFT = OBJECTIVES["sft"]
CASES = [(Full(), torch.float32), (Full(), torch.bfloat16), (Lora(rank=2), torch.float32), (Lora(rank=2), torch.bfloat16)]
IDS = ["full-fp32", "full-bf16", "lora-fp32", "lora-bf16"]


def engine(tuning: Tuning | None = None, dtype: torch.dtype = torch.float32, **optim: object) -> Engine:
    return Engine(nets.policy(nets.qwen3, tuning or Lora(rank=2), dtype), OptimSettings(learning_rate=1e-2, **optim))  # type: ignore[arg-type]


def turn(one: Engine, seed: int) -> float:
    tally = one.forward_backward(micro_batches(nets.singles(4, seed), 60), SFT)
    norm = one.gradient_norm(tally)
    one.step(1e-2, norm)
    return tally.means()["loss"]


def weights(one: Engine) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in one.policy.model.parameters()])


@pytest.mark.parametrize(("tuning", "dtype"), CASES, ids=IDS)
def test_saved_and_loaded_it_goes_on_to_the_last_bit(tuning: Tuning, dtype: torch.dtype) -> None:
    whole = engine(tuning, dtype)
    turn(whole, 0), turn(whole, 1)
    saved = {name: tensor.clone() for name, tensor in whole.save().items()}
    resumed = engine(tuning, dtype)
    turn(resumed, 7)
    resumed.load(saved)
    assert torch.equal(weights(resumed), weights(whole))
    assert [turn(resumed, seed) for seed in (2, 3)] == [turn(whole, seed) for seed in (2, 3)]
    assert torch.equal(weights(resumed), weights(whole))
    again = whole.save()
    assert all(torch.equal(tensor, again[name]) for name, tensor in resumed.save().items())


def test_a_fresh_engine_saves_its_start() -> None:
    fresh, other = engine(), engine()
    turn(other, 0)
    start = {name: tensor.clone() for name, tensor in fresh.save().items()}
    assert set(start) == {f"param/{name}" for name in fresh.names}
    other.load(start)
    assert torch.equal(weights(other), weights(fresh))


def test_loading_forgets_moments_that_were_not_saved() -> None:
    fresh, other = engine(), engine()
    start = {name: tensor.clone() for name, tensor in fresh.save().items()}
    turn(other, 5)
    other.load(start)
    turn(fresh, 0), turn(other, 0)
    assert torch.equal(weights(other), weights(fresh))


def test_a_step_learns_and_leaves_no_gradient() -> None:
    one = engine()
    first = turn(one, 0)
    assert all(p.grad is None for p in one.policy.model.parameters())
    for _ in range(20):
        last = turn(one, 0)
    assert last < first - 0.1


@pytest.mark.parametrize("clip", [0.01, 1e9, None])
def test_the_gradient_is_clipped_to_the_norm(clip: float | None) -> None:
    one = engine(clip=clip, beta1=0.0)
    tally = one.forward_backward(micro_batches(nets.singles(), 100), SFT)
    norm = one.gradient_norm(tally)
    assert norm == pytest.approx(float(torch.cat([g.flatten() for g in one.masters.gradients()]).norm()), rel=1e-5)
    one.step(1e-2, norm)
    moved = torch.cat([one.optimizer.state[master]["exp_avg"].flatten() for master in one.masters])  # the gradient itself, as beta1 is 0
    assert float(moved.norm()) == pytest.approx(min(norm, clip or norm), rel=1e-3)


def test_a_batch_without_reads_changes_nothing() -> None:
    silent = (Sequence([5, 6, 7], [0.0, 0.0, 0.0]),)
    groups = nets.singles(3)
    one = engine()
    tally = one.forward_backward(micro_batches(groups, 10**9), SFT)
    alone = (one.gradient_norm(tally), tally.means()["loss"])
    one.forget()
    tally = one.forward_backward([*micro_batches([silent], 10**9), *micro_batches(groups, 10**9)], SFT)
    assert (one.gradient_norm(tally), tally.means()["loss"]) == alone
    one.forget()
    tally = one.forward_backward(micro_batches([silent], 10**9), SFT)
    assert tally.total == 0
    assert one.gradient_norm(tally) == 0


def test_a_stopped_step_moves_nothing_and_leaves_no_gradient() -> None:
    class Impatient(BaseHook):
        asked = 0
        ended = False

        def wants_stop(self) -> bool:
            self.asked += 1
            return self.asked > 2

        def finished(self, state: State) -> None:
            self.ended = True

    one, hook = engine(), Impatient()
    before = weights(one)
    source = Offline(nets.singles(8), step_groups=8, budget=40)
    assert len(source.batches(1)) > 2
    state = train(one, source, SFT, (hook,))
    assert (state.step, bool(state.stop), hook.ended) == (0, True, True)
    assert torch.equal(weights(one), before)
    assert all(p.grad is None for p in one.policy.model.parameters())


def test_stopping_is_asked_between_micro_batches() -> None:
    one = engine()
    with pytest.raises(Stopped):
        one.forward_backward(micro_batches(nets.singles(), 60), SFT, should_stop=lambda: True)
    one.forget()
    tally = one.forward_backward(micro_batches(nets.singles(), 60), SFT)
    assert tally.tokens == sum(len(sequence.tokens) for (sequence,) in nets.singles())


def test_a_refused_gradient_moves_nothing() -> None:
    class Refuser(BaseHook):
        def accepts(self, state: State) -> bool:
            return False

    one = engine()
    before = weights(one)
    state = train(one, Offline(nets.singles(4), step_groups=2, budget=100), SFT, (Refuser(),))
    assert state.step == 2
    assert torch.equal(weights(one), before)
    assert all(p.grad is None for p in one.policy.model.parameters())


def test_a_run_stopped_and_taken_up_again_repeats_its_dropout() -> None:
    class Losses(BaseHook):
        def __init__(self, last: int) -> None:
            self.last, self.seen = last, list[float]()

        def stepped(self, state: State) -> None:
            self.seen.append(state.metrics["loss"])
            if state.step == self.last:
                state.stop = "enough"

    source = Offline(nets.singles(8), step_groups=2, budget=100)
    tuning = Lora(rank=2, dropout=0.3)
    whole, first, second = Losses(4), Losses(2), Losses(4)
    train(engine(tuning), source, SFT, (whole,), seed=3)
    half, rest = engine(tuning), engine(tuning)
    train(half, source, SFT, (first,), seed=3)
    rest.load(half.save())
    train(rest, source, SFT, (second,), done=2, seed=3)
    assert first.seen + second.seen == whole.seen
    plain = Losses(1)
    train(engine(Lora(rank=2)), source, SFT, (plain,), seed=3)
    assert plain.seen[0] != whole.seen[0], "dropout did nothing"


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_an_optimiser_taken_up_again_goes_on_bit_for_bit(name: str) -> None:
    if name != "adamw":
        pytest.importorskip("bitsandbytes", reason="8-bit moments are bitsandbytes'")
    optim = OptimSettings(name=name, learning_rate=1e-2)  # type: ignore[arg-type]
    batch = pack(nets.singles(4))

    def engine() -> Engine:
        return Engine(nets.policy(nets.llama, Lora(rank=128, targets=("up_proj", "k_proj"))), optim)

    def steps(one: Engine, count: int) -> None:
        for _ in range(count):
            tally = one.forward_backward([batch], OBJECTIVES["sft"])
            one.step(1e-2, one.gradient_norm(tally))

    whole, first, second = engine(), engine(), engine()
    steps(whole, 4)
    steps(first, 2)
    second.load({key: tensor.clone() for key, tensor in first.save().items()})
    steps(second, 2)
    ours, theirs = second.save(), whole.save()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    kinds = {tensor.dtype for key, tensor in ours.items() if key.startswith("state1/")}
    assert kinds == (set() if name == "adamw" else {torch.uint8, torch.float32}), "small matrices keep wide moments"
