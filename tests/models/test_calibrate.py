"""What is measured before layers are chosen, and that the layers that matter are chosen: an outlier that was planted comes first."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from hone.data.batching import micro_batches
from hone.models.allot import Limits, allot, shortlist
from hone.models.calibrate import Bench, LayerError, divergence, hidden_states, layer_errors
from hone.models.policy import Policy
from hone.models.quantise import pack, quantisable, quantise
from hone.plan.packed import Scheme
from hone.tuning.base import Untouched
from tests import nets

pytest.importorskip("bitsandbytes", reason="4- and 8-bit weights are packed by bitsandbytes (the extra 'quant')")

NF4 = Scheme("nf4", double=True)
TEXT = micro_batches(nets.singles(12), 256)
PLANTED = "model.layers.1.mlp.down_proj"


def policy_of(model: nn.Module) -> Policy:
    tuning = Untouched()
    tuning.attach(model, seed=0)
    return Policy.of(model, tuning)


def with_an_outlier() -> nn.Module:
    """In one layer a column of huge weights, for an input that is hardly there: beside them all others are rounded to nothing."""
    torch.manual_seed(0)
    model: nn.Module = nets.llama()
    with torch.no_grad():
        weight, source = (model.get_submodule(path).weight for path in (PLANTED, PLANTED.replace("down_proj", "up_proj")))
        assert isinstance(weight, torch.Tensor) and isinstance(source, torch.Tensor)
        weight.mul_(20)
        weight[:, 0] *= 1e4
        source[0] *= 1e-4
    return model


def benched(model: nn.Module) -> tuple[dict[str, LayerError], Bench]:
    """The errors of a plain model, and the model quantised."""
    plain = copy.deepcopy(model)
    policy = policy_of(model)
    errors, known = layer_errors(policy, TEXT, NF4, width=2)
    quantise(model, NF4, place=torch.device("cpu"), dtype=torch.float32)
    bench = Bench(policy, TEXT, known)
    for path, layer in bench.packed.items():
        layer.original = lambda path=path: plain.get_submodule(path).weight.detach()
    return {error.path: error for error in errors}, bench


def test_errors_are_those_of_their_definition() -> None:
    torch.manual_seed(0)
    model: nn.Module = nets.llama()
    policy = policy_of(model)
    seen: dict[str, list[torch.Tensor]] = {}
    path = "model.layers.0.mlp.up_proj"
    hook = model.get_submodule(path).register_forward_hook(lambda module, inputs, _: seen.setdefault(path, []).append(inputs[0]))
    errors, _ = layer_errors(policy, TEXT, NF4, width=2)
    hook.remove()
    one = next(error for error in errors if error.path == path)
    weight, x = model.get_submodule(path).weight, torch.cat([each.reshape(-1, 32) for each in seen[path]])
    assert isinstance(weight, torch.Tensor)
    lost = (weight - pack(weight.detach(), NF4).dense()).detach()
    assert one.weight == pytest.approx(float(lost.norm() / weight.detach().norm()), rel=1e-4)
    assert one.output == pytest.approx(float((x @ lost.t()).norm() / (x @ weight.detach().t()).norm()), rel=1e-3)
    assert {error.path for error in errors} == set(quantisable(model, NF4))
    assert one.extra == 2 * 48 * 32 - one.packed_bytes


def test_a_model_does_not_diverge_from_itself_and_a_quantised_one_does() -> None:
    model = with_an_outlier()
    policy = policy_of(model)
    known = hidden_states(policy, TEXT)
    assert divergence(policy, TEXT, known) == pytest.approx(0, abs=1e-6)
    quantise(model, NF4, place=torch.device("cpu"), dtype=torch.float32)
    assert divergence(policy, TEXT, known) > 1e-4


def test_a_planted_outlier_is_chosen_first_and_takes_most_of_the_divergence_away() -> None:
    errors, bench = benched(with_an_outlier())
    assert max(errors, key=lambda path: errors[path].output) == PLANTED and PLANTED in shortlist(errors)
    before = bench.divergence()
    choices = allot(bench, errors, Limits(extra=3 * errors[PLANTED].extra), tell=lambda _: None)
    assert choices[0].path == PLANTED
    assert choices[0].kl < 0.5 * before
    assert bench.divergence() == pytest.approx(choices[-1].kl, rel=1e-3), "what was kept is what is there"
    assert sum(choice.extra for choice in choices) <= 3 * errors[PLANTED].extra


def test_on_other_text_the_choice_beats_first_last_and_random_layers_at_the_same_bytes() -> None:
    other = micro_batches(nets.singles(12, seed=1), 256)
    model = with_an_outlier()
    known = hidden_states(policy_of(copy.deepcopy(model)), other)
    errors, bench = benched(model)
    uniform = divergence(bench.policy, other, known)
    limit = 2 * errors[PLANTED].extra
    chosen = [choice.path for choice in allot(bench, errors, Limits(extra=limit), tell=lambda _: None)]
    dynamic = divergence(bench.policy, other, known)
    assert dynamic < uniform

    def with_kept(order: list[str]) -> float:
        for path, layer in bench.packed.items():
            bench.policy.model.set_submodule(path, layer)
        left = limit
        for path in order:
            if errors[path].extra <= left:
                bench.restore(path)
                left -= errors[path].extra
        return divergence(bench.policy, other, known)

    paths = [path for path in errors if path != PLANTED]
    assert chosen[0] == PLANTED
    assert dynamic < min(with_kept(order) for order in (paths, paths[::-1], paths[3:] + paths[:3]))


def test_a_wanted_divergence_is_come_to_and_not_more() -> None:
    errors, bench = benched(with_an_outlier())
    wanted = 0.5 * bench.divergence()
    choices = allot(bench, errors, Limits(extra=10**9, kl=wanted), tell=lambda _: None)
    assert choices[-1].kl <= wanted
    assert all(choice.kl > wanted for choice in choices[:-1])


@dataclass
class Additive:
    """A model whose divergence is a sum over its layers, so that the best choice is known."""

    worth: Mapping[str, float]
    kept: set[str] = field(default_factory=set)
    asked: int = 0

    def restore(self, path: str) -> None:
        self.kept.add(path)

    def divergence(self) -> float:
        return sum(value for path, value in self.worth.items() if path not in self.kept)

    def divergence_with(self, path: str) -> float:
        self.asked += 1
        return self.divergence() - self.worth[path]


def test_the_greedy_choice_is_by_worth_for_bytes_and_asks_little() -> None:
    worth = {"a": 4.0, "b": 3.0, "c": 1.0, "d": -1.0, "e": 0.5}
    sizes = {"a": 4, "b": 1, "c": 1, "d": 1, "e": 1}
    errors = {path: LayerError(path, 1, 1, size + 1, 1, 0.1, 0.1, 1.0) for path, size in sizes.items()}
    trial = Additive(worth)
    choices = allot(trial, errors, Limits(extra=6), tell=lambda _: None)
    assert [choice.path for choice in choices] == ["b", "a", "c"] or [choice.path for choice in choices] == ["b", "c", "a"]
    assert choices[0].gain == pytest.approx(3.0) and "d" not in trial.kept
    assert trial.asked <= 5 + 2 * len(choices), "what was measured is a bound, and only the best is asked again"
