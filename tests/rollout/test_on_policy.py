"""The policy writes what it learns from: every sequence knows which weights wrote it, and a resumed run writes the same again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from hone.core.errors import HoneError
from hone.data.offline import Offline
from hone.objectives import OBJECTIVES
from hone.rollout.on_policy import OnPolicy
from hone.train.engine import Engine
from hone.train.loop import BaseHook, State, train
from hone.train.settings import OptimSettings
from hone.tuning.full import Full
from hone.tuning.lora import Lora
from tests import nets
from tests.rollout import studio

Build = Callable[..., PreTrainedModel]


@pytest.fixture(params=["llama", "qwen3", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_llama: Build, tiny_qwen3: Build) -> PreTrainedModel:
    return studio.lively({"llama": tiny_llama, "qwen3": tiny_qwen3, "gpt2": studio.gpt2}[request.param]())


@pytest.fixture
def llama(tiny_llama: Build) -> PreTrainedModel:
    return studio.lively(tiny_llama())


class Listener(BaseHook):
    """Remembers the batches and numbers of every step."""

    def __init__(self, source: OnPolicy) -> None:
        self.source, self.batches, self.metrics = source, [], []  # type: ignore[var-annotated]

    def stepped(self, state: State) -> None:
        self.batches.append(state.batches)
        self.metrics.append(state.metrics | self.source.metrics)


def weights(engine: Engine) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in engine.policy.trainable().values()])


def run(engine: Engine, source: OnPolicy, objective: str, **settings: Any) -> Listener:
    heard = Listener(source)
    train(engine, source, OBJECTIVES[objective].bind(**settings), (heard,))
    return heard


@pytest.mark.parametrize("tuning", [Lora(rank=4), Full()], ids=["lora", "full"])
def test_what_is_sampled_is_what_is_trained(model: PreTrainedModel, tiny_tokenizer: Any, tuning: Any) -> None:
    """On unchanged weights, the sampler's log-probabilities are the trainer's, in its own packed layout."""
    engine = studio.engine(model, tuning)
    for parameter in engine.policy.trainable().values():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    (batches,) = studio.source(engine, tiny_tokenizer, steps=1, longest=20).steps()
    for batch in batches:
        with torch.no_grad():
            logp_N = engine.policy.signals(batch, "logp").logp
        torch.testing.assert_close(logp_N, batch.facts["old_logp"], rtol=0, atol=1e-5)


def test_every_sequence_is_of_the_policy_that_is_about_to_learn(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    engine = studio.engine(llama)
    heard = run(engine, studio.source(engine, tiny_tokenizer, steps=4), "grpo")
    versions = [{float(v) for batch in step for v in batch.facts["version"]} for step in heard.batches]
    assert versions == [{0.0}, {1.0}, {2.0}, {3.0}], "step n + 1 is written by weights that have taken n steps"
    assert [m["lag"] for m in heard.metrics] == [0.0] * 4
    assert all(m["clipped"] == 0.0 for m in heard.metrics), "on policy, every ratio is 1"
    assert engine.taken == 4


def test_the_weights_really_are_the_new_ones(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    """The second rollout is what the moved weights write, and not what the first ones would have."""
    engine = studio.engine(llama, rate=0.3)
    source = studio.source(engine, tiny_tokenizer, steps=2)
    stale = studio.source(engine, tiny_tokenizer, steps=2)._take(1)
    heard = run(engine, source, "grpo")
    fresh = sorted(tuple(s.tokens) for group in source._now.groups for s in group)  # type: ignore[union-attr]
    assert fresh != sorted(tuple(s.tokens) for group in stale.groups for s in group)
    assert len(heard.batches) == 2


def test_with_an_offline_source_nothing_is_written() -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("an offline run has sampled")

    objective = OBJECTIVES["dpo"]
    policy = nets.asked(nets.policy(nets.llama, Lora(rank=4)), objective)
    engine = Engine(policy, OptimSettings(learning_rate=1e-3), sampler=never)
    train(engine, Offline(nets.pairs(4), step_groups=2, budget=200), objective)
    with pytest.raises(AssertionError, match="sampled"):
        engine.sample([[3]])


CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "grpo": ("grpo", {"kl": 0.05}, ""),
    "dr_grpo": ("dr_grpo", {"credit": {"name": "centred", "scale": "none"}}, ""),
    "dapo": ("dapo", {"rounds": 3}, ""),
    "gspo": ("gspo", {}, ""),
    "cispo": ("cispo", {}, ""),
    "rloo": ("rloo", {"credit": "leave_one_out"}, ""),
    "reinforce++": ("dapo", {"credit": "batch_normalised", "kl": 0.01}, ""),
    "remax": ("reinforce", {"credit": "greedy_baseline", "group_size": 1}, ""),
    "ppo": ("ppo", {"credit": "gae", "group_size": 1, "kl": 0.05, "passes": 2, "parts": 2}, "value"),
    "online dpo": ("dpo", {"credit": "best_and_worst"}, ""),
    "rejection sampling": ("sft", {"credit": "best"}, ""),
    "distillation": ("distill", {"credit": "keep"}, "divergence"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_combination_learns_and_resumes_to_the_bit(name: str, llama: PreTrainedModel, tiny_llama: Build, tiny_tokenizer: Any) -> None:
    """Two steps, the source's state through JSON, and two more: the same weights as four steps in one go."""
    objective, settings, needs = CASES[name]

    def begin() -> tuple[Engine, OnPolicy]:
        engine = studio.engine(studio.lively(tiny_llama()), needs=needs)
        engine.policy.teacher = engine.policy if needs == "divergence" else None
        return engine, studio.source(engine, tiny_tokenizer, steps=4, **dict(settings))

    whole, source = begin()
    started = weights(whole)
    heard = run(whole, source, objective)
    if name != "distillation":  # its teacher is the student itself here, from which there is nothing to learn
        assert (weights(whole) - started).norm() > 0
    assert all(0 <= m["reward"] <= 1 for m in heard.metrics)

    first, source = begin()
    train(first, source, OBJECTIVES[objective], (Until(2),))
    saved, state = first.save(), json.loads(json.dumps(source.state()))
    second, source = begin()
    second.load(saved)
    source.restore(state)
    train(second, source, OBJECTIVES[objective], done=2)
    assert torch.equal(weights(second), weights(whole))


class Until(BaseHook):
    """Stops after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, state: State) -> None:
        state.stop = "enough" if state.step == self.step else ""


def test_a_rollout_ahead_is_one_rollout_old_and_resumes_too(tiny_llama: Build, tiny_tokenizer: Any) -> None:
    def begin() -> tuple[Engine, OnPolicy]:
        engine = studio.engine(studio.lively(tiny_llama()), rate=0.05)
        return engine, studio.source(engine, tiny_tokenizer, steps=5, ahead=1)

    whole, source = begin()
    heard = run(whole, source, "grpo")
    versions = [{float(v) for batch in step for v in batch.facts["version"]} for step in heard.batches]
    assert versions == [{0.0}, {0.0}, {1.0}, {2.0}, {3.0}]
    assert [m["lag"] for m in heard.metrics] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert "next" not in source.state(), "nothing is written ahead of the last step"
    first, source = begin()
    train(first, source, OBJECTIVES["grpo"], (Until(3),))
    saved, state = first.save(), json.loads(json.dumps(source.state()))
    assert state["next"]["index"] == 3
    second, source = begin()
    second.load(saved)
    source.restore(state)
    train(second, source, OBJECTIVES["grpo"], done=3)
    assert torch.equal(weights(second), weights(whole))


def test_passes_and_parts_see_every_group_of_a_rollout_once_a_pass(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    engine = studio.engine(llama)
    heard = run(engine, studio.source(engine, tiny_tokenizer, steps=8, passes=2, parts=2), "grpo")
    rows = [sorted(origin.row for batch in step for origin in batch.origins) for step in heard.batches]
    assert all(len(set(step)) == 2 and len(step) == 6 for step in rows), "two prompts with three answers each"
    assert sorted(rows[0] + rows[1]) == sorted(rows[2] + rows[3])
    assert [m["lag"] for m in heard.metrics] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert sorted({row for step in rows for row in step}) == [1, 2, 3, 4, 5, 6], "a shuffled pass asks every prompt"


def _hard(answers: Any) -> list[float]:
    """Only answers to two of six prompts differ."""
    return [float(i % 2) if a.origin.row <= 2 else 0.0 for i, a in enumerate(answers)]


def test_dynamic_sampling_replaces_groups_without_contrast(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    engine = studio.engine(llama)
    plain = studio.source(engine, tiny_tokenizer, reward=_hard, step_prompts=4)
    groups = plain._take(0).groups
    flat = [s.facts["advantage"] for group in groups for s in group]
    assert len(groups) == 4 and sum(not any(a) for a in flat) >= 6, "groups without contrast are kept, and teach nothing"
    dynamic = studio.source(engine, tiny_tokenizer, reward=_hard, step_prompts=4, rounds=20)
    found = dynamic._take(0)
    assert len(found.groups) == 4 and found.metrics["rounds"] > 1
    assert {s.origin.row for group in found.groups for s in group} <= {1, 2}
    hopeless = studio.source(engine, tiny_tokenizer, reward=lambda answers: [0.0] * len(answers), rounds=2)
    assert len(hopeless._take(0).groups) == 2, "without any contrast the groups are kept as they are"


def test_a_step_from_which_nothing_can_be_learned_moves_nothing(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    engine = studio.engine(llama)
    source = studio.source(engine, tiny_tokenizer, reward=lambda answers: [0.0] * len(answers), credit="best_and_worst")
    before = weights(engine)
    heard = run(engine, source, "dpo")
    assert torch.equal(weights(engine), before) and [m["loss"] for m in heard.metrics] == [0.0] * 3


@pytest.mark.parametrize("cut", ["keep", "mask", "drop"])
def test_cut_answers(llama: PreTrainedModel, tiny_tokenizer: Any, cut: str) -> None:
    engine = studio.engine(llama)
    source = studio.source(engine, tiny_tokenizer, cut=cut, longest=4, group_size=8, step_prompts=6, sampling={"temperature": 4.0})
    found = source._take(0)
    finished = [s.tokens[-1] == studio.END for group in found.groups for s in group]
    assert 0 < found.metrics["cut"] < 1
    assert all(finished) == (cut == "drop")
    learned = [s.learned > 0 for group in found.groups for s in group]
    assert learned == (finished if cut == "mask" else [True] * len(finished))


def test_a_dropped_answer_leaves_its_group(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    def picky(answers: Any) -> list[float]:
        return [float("nan") if i == 1 else float(i) for i in range(len(answers))]

    engine = studio.engine(llama)
    source = studio.source(engine, tiny_tokenizer, reward=picky)
    source.crew.panel.on_error = "drop"
    assert sorted(len(group) for group in source._take(0).groups) == [2, 3]


def test_the_prompts_of_a_step_are_a_function_of_seed_and_step(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    source = studio.source(studio.engine(llama), tiny_tokenizer, step_prompts=4)
    asked = [prompt.origin.row for index in range(3) for prompt in source.chosen(index)]
    assert sorted(asked[:6]) == sorted(asked[6:]) == [1, 2, 3, 4, 5, 6]
    assert [p.origin.row for p in source.chosen(1)] == asked[4:8]
    more = studio.source(studio.engine(studio.gpt2()), tiny_tokenizer, step_prompts=20)
    assert len(more.chosen(0)) == 20


def test_no_prompts_is_an_error(llama: PreTrainedModel, tiny_tokenizer: Any) -> None:
    with pytest.raises(HoneError) as caught:
        studio.source(studio.engine(llama), tiny_tokenizer, count=0)
    assert caught.value.code == "R010"
