"""What every method promises, on every family: its size, its start, its way out, its way back, and one gradient.

A method is tested here from the moment it is registered. `SMALL` shrinks settings that are too large for these models.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.data.batching import micro_batches, pack
from hone.data.offline import Offline
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES
from hone.rollout.sample import Sampler
from hone.train.engine import Engine
from hone.train.loop import BaseHook, State, train
from hone.train.optim import OptimSettings
from hone.tuning import METHODS, Tuning, trainable
from hone.tuning.base import Ours, Untouched
from hone.tuning.opening import open_adapter
from hone.tuning.shapes import Shapes
from tests import nets

SMALL: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "dora": {"rank": 4},
    "adalora": {"rank": 4, "target_rank": 2, "every": 1},
    "peft": {"kind": "hira", "options": {"target_modules": ".*(q_proj|down_proj|c_attn|c_fc)", "r": 4}},
    "freeze": {"last": 1, "train": ["lm_head"]},
    "prefix": {"length": 4, "encoder": 6},
    "ptuning_v2": {"length": 4},
    "prompt": {"length": 4},
    "ptuning": {"length": 4, "width": 6, "encoder": "lstm"},
    "houlsby": {"size": 4},
    "pfeiffer": {"size": 4},
    "parallel_adapter": {"size": 6},
    "adapterdrop": {"size": 4},
    "mam": {"length": 4, "encoder": 6, "size": 6},
    "unipelt": {"length": 4, "size": 6, "rank": 3},
}
VARIANTS = {"lora with rows": ("lora", {"rank": 3, "tokens": [5, 17, 40]}), "dora with rows": ("dora", {"rank": 3, "tokens": [5, 17, 40]})}
"""Settings that change what a method puts into a model so much that all must hold for them too."""
BATCH = pack(nets.singles(4) + nets.pairs(1))
BASE = {"name": "tiny", "fingerprint": "shape-bytes"}
LOGP = "logp"
SFT = OBJECTIVES["sft"]

pytestmark = [
    pytest.mark.parametrize("family", nets.MODELS),
    pytest.mark.parametrize("method", [*METHODS, *VARIANTS]),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]


@cache
def trained_before(family: str) -> list[str]:
    """Folders of two adapters, for the method that mixes some."""
    folder = Path(tempfile.mkdtemp())
    for i in range(2):
        one = nets.policy(nets.MODELS[family], made("pfeiffer", family))
        one.tuning.save(one.model, folder / str(i), base=BASE)
    return [str(folder / str(i)) for i in range(2)]


def made(method: str, family: str) -> Tuning:
    options: dict[str, Any] = {"adapters": trained_before(family)} if method == "fusion" else SMALL.get(method, {})
    name, options = VARIANTS.get(method, (method, options))
    tuning: Tuning = parse(METHODS[name], options, section="tuning")
    return tuning


def policy(method: str, family: str, **options: Any) -> Policy:
    return nets.policy(nets.MODELS[family], made(method, family), **options)


@torch.no_grad()
def said(policy: Policy) -> Tensor:
    policy.model.eval()
    return policy.signals(BATCH, LOGP).logp


@cache
def base_says(family: str) -> Tensor:
    return said(nets.policy(nets.MODELS[family], Untouched(), moved=False))


def moves_base(tuning: Tuning) -> bool:
    return tuning.about.artifact == "model"


def test_the_formula_counts_what_moves(method: str, family: str) -> None:
    with torch.device("meta"):
        shapes = Shapes.of(nets.MODELS[family]())
    moving = trainable(policy(method, family, moved=False).model)
    assert sum(p.numel() for p in moving.values()) == made(method, family).count(shapes) > 0
    assert made(method, family).about.when


def test_it_starts_as_the_base(method: str, family: str) -> None:
    tuning = made(method, family)
    difference = (said(policy(method, family, moved=False)) - base_says(family)).abs().max()
    assert difference <= 1e-5 if tuning.about.starts_as_base else difference > 0


def test_stepping_aside_shows_the_base_exactly(method: str, family: str) -> None:
    one = policy(method, family)
    tuned = said(one)
    assert (tuned - base_says(family)).abs().max() > 1e-5
    if moves_base(one.tuning):
        with pytest.raises(HoneError, match="M011"):
            one.tuning.disabled(one.model)
        return
    with one.tuning.disabled(one.model):
        assert (said(one) - base_says(family)).abs().max() == 0
    assert (said(one) - tuned).abs().max() == 0


def test_taken_off_it_leaves_the_base(method: str, family: str) -> None:
    one = policy(method, family)
    if moves_base(one.tuning):
        with pytest.raises(HoneError, match="M011"):
            one.tuning.detach(one.model)
        return
    one.tuning.detach(one.model)
    assert not ours_in(one.model)
    assert (said(one) - base_says(family)).abs().max() == 0


def ours_in(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Ours)]


def test_saved_and_opened_it_says_the_same(method: str, family: str, tmp_path: Path) -> None:
    one = policy(method, family)
    one.tuning.save(one.model, tmp_path, base=BASE)
    tuning = made(method, family) if moves_base(one.tuning) else open_adapter(tmp_path).tuning
    fresh = nets.policy(nets.MODELS[family], tuning, moved=False)
    tuning.load(fresh.model, tmp_path, base=BASE)
    assert (said(fresh) - said(one)).abs().max() == 0


def test_an_adapter_knows_its_base(method: str, family: str, tmp_path: Path) -> None:
    one = policy(method, family)
    if moves_base(one.tuning):
        pytest.skip("it leaves a whole model")
    one.tuning.save(one.model, tmp_path, base=BASE)
    assert open_adapter(tmp_path).base == BASE
    with pytest.raises(HoneError, match="M003"):
        one.tuning.load(one.model, tmp_path, base={"name": "other", "fingerprint": "shape-other"})


def test_merged_it_says_the_same_or_says_why_not(method: str, family: str) -> None:
    one = policy(method, family)
    before = said(one)
    try:
        one.tuning.merge(one.model)
    except HoneError as error:
        assert error.code == "M040" and error.fix
        assert one.tuning.about.unmergeable or "bias" in error.what
        return
    assert one.tuning.about.mergeable
    assert not ours_in(one.model)
    assert (said(one) - before).abs().max() <= 1e-5


def test_with_a_cache_it_writes_what_it_would_without(method: str, family: str) -> None:
    one = policy(method, family)
    prompts = [group[0].tokens[:7] for group in nets.singles(3)]
    sampler = Sampler(one.model, Numbers(), stock=one.stock)
    assert sampler.fit.works
    for prompt, answer in zip(prompts, sampler.generate(prompts, max_new_tokens=6), strict=True):
        whole = [*prompt, *answer.tokens]
        weights = [0.0] * len(prompt) + [1.0] * len(answer.tokens)
        batch = pack([(nets.Sequence(whole, weights),)])
        with torch.no_grad():
            logp = one.signals(batch, LOGP).logp
        assert (logp - torch.tensor(answer.logps, dtype=logp.dtype)).abs().max() <= 1e-4


def test_one_gradient_however_it_is_computed(method: str, family: str) -> None:
    engine = Engine(policy(method, family, dtype=torch.float64), OptimSettings(learning_rate=1e-3))
    assert engine.policy.packed
    groups = nets.singles(6) + nets.pairs(2)

    def gradient(budget: int, *, share: bool = True) -> Tensor:
        torch.manual_seed(0)
        engine.begin(1, 10)
        engine.gradient_norm(engine.forward_backward(micro_batches(groups, budget, share=share), SFT))
        whole = torch.cat([g.flatten() for g in engine.masters.gradients()])
        engine.forget()
        return whole

    engine.policy.model.train()
    whole = gradient(10**9)
    assert whole.norm() > 0
    ways = {"micro-batches": gradient(70), "separate rows": gradient(10**9, share=False)}
    engine.policy.packed = False
    ways["padded"] = gradient(10**9)
    for way, other in ways.items():
        assert (other - whole).norm() <= 1e-10 * whole.norm(), way


class Numbers:
    """A tokenizer that writes its tokens as numbers."""

    def decode(self, tokens: list[int], **_: bool) -> str:
        return " ".join(map(str, tokens))


class StopAt(BaseHook):
    """Ends a run after some steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, state: State) -> None:
        state.stop = "enough" if state.step == self.step else ""


def test_resumed_it_is_the_uninterrupted_run_to_the_last_bit(method: str, family: str) -> None:
    source = Offline(nets.singles(5), step_groups=2, budget=60, epochs=1.0, max_steps=None, seed=0, shuffle=True)

    def engine() -> Engine:
        return Engine(policy(method, family, moved=False), OptimSettings(learning_rate=1e-2, warmup_ratio=0))

    whole, first, second = engine(), engine(), engine()
    start = {name: tensor.clone() for name, tensor in whole.save().items()}
    train(whole, source, SFT)
    train(first, source, SFT, (StopAt(1),))
    second.load({name: tensor.clone() for name, tensor in first.save().items()})
    train(second, source, SFT, done=1)
    one, other = whole.save(), second.save()
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, one[name]) for name, tensor in start.items())
