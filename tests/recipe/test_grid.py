"""The words of a sweep: what is varied, over what, and what is refused."""

from __future__ import annotations

import pytest

from hone.core.errors import HoneError
from hone.recipe import halving
from hone.recipe.grid import Axis, arms_of, axes_of, draw, drawn, pieces


def test_lists_ranges_and_plain_settings_are_told_apart() -> None:
    plain, axes = axes_of(["model=m", "lr", "rank=4,8", "tuning.targets=[q,k],[v]", "--wd=0.1", "optim.clip=0.1..10"])
    assert plain == ["model=m", "--wd=0.1"]
    assert axes[0] == Axis("optim.learning_rate", ("2e-4", "1e-4", "5e-5", "2e-5")), "the guide's list"
    assert axes[1:] == [Axis("tuning.rank", ("4", "8")), Axis("tuning.targets", ("[q,k]", "[v]")), Axis("optim.clip", low=0.1, high=10.0)]
    assert pieces("a,'b,c',{d: [e,f]}") == ["a", "'b,c'", "{d: [e,f]}"]


def test_arms_are_named_by_what_they_vary() -> None:
    _, axes = axes_of(["lr=1e-4,1e-3", "data=x/a.jsonl,y/b.jsonl"])
    arms = arms_of(axes, seeds=(1, 2))
    assert len(arms) == 8
    assert arms[0].folder == "learning_rate=1e-4,train=a.jsonl,seed=1"
    assert arms[0].words == ("optim.learning_rate=1e-4", "data.train=x/a.jsonl", "seed=1")
    assert [arm.folder for arm in arms_of([], seeds=(1, 2))] == ["seed=1", "seed=2"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("C140", ["optim.clip"]),
        ("C141", ["rank=4,,8"]),
        ("C141", ["lr=1..1e-3"]),
        ("C142", ["rank=4,8", "tuning.rank=2"]),
        ("C142", ["rank=4,8", "lora_r=2,3"]),
        ("C142", ["seed=1,2"]),
        ("C142", ["output=a,b"]),
        ("C142", ["data=x/a.jsonl,y/a.jsonl"]),
        ("C143", ["lr=1e-5..1e-3"]),
        ("C143", ["rank=4"]),
        ("C143", [f"{key}={','.join(map(str, range(1, 8)))}" for key in ("rank", "epochs", "batch_size")]),
    ],
)
def test_what_makes_no_sweep_is_refused(code: str, words: list[str]) -> None:
    with pytest.raises(HoneError) as caught:
        arms_of(axes_of(words)[1])
    assert caught.value.code == code and caught.value.fix


def test_draws_are_spread_over_the_logarithm_and_a_function_of_the_seed() -> None:
    _, axes = axes_of(["lr=1e-5..1e-3", "rank=8..64"])
    arms = drawn(axes, 40, seed=1)
    assert arms == drawn(axes, 40, seed=1) != drawn(axes, 40, seed=2)
    rates = [float(arm.overrides[0].partition("=")[2]) for arm in arms]
    assert min(rates) >= 1e-5 and max(rates) <= 1e-3 and 10 < sum(rate < 1e-4 for rate in rates) < 30
    assert draw(axes[1], 0.5) == "23"
    assert len(drawn([Axis("a", ("1", "2"))], 9, seed=0)) == 2, "there are no more"


def test_halving_costs_a_few_runs_and_ends_with_one() -> None:
    assert halving.rungs(8) == [(0.125, 4), (0.25, 2), (0.5, 1)]
    assert halving.rungs(5) == [(0.125, 3), (0.25, 2), (0.5, 1)] and halving.rungs(1) == []
    assert halving.cost(8) == pytest.approx(2.5)
