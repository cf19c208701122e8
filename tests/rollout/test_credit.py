"""Credit against numpy, and what each scheme does with groups that teach nothing."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from hone.core.errors import HoneError
from hone.core.types import Sequence
from hone.rollout.credit import CREDITS, Outcome, contrast, estimate


def outcome(reward: float, *, length: int = 4, prompt: int = 2, **fields: Any) -> Outcome:
    return Outcome(Sequence([7] * (prompt + length), [0.0] * prompt + [1.0] * length), reward, **fields)


def judged(rewards: list[list[float]]) -> list[list[Outcome]]:
    return [[outcome(reward, length=3 + i) for i, reward in enumerate(group)] for group in rewards]


def taught(name: str, groups: list[list[Outcome]], **settings: Any) -> list[list[float]]:
    """The advantage of each answer, which is the same at all its learned tokens, and 0 at its prompt."""
    found = []
    for group in CREDITS[name].bind(settings)(groups):
        row = []
        for sequence in group:
            whole = sequence.facts["advantage"]
            assert isinstance(whole, list) and len(whole) == len(sequence.tokens)
            assert set(whole[:2]) == {0.0} and len(set(whole[2:])) == 1
            row.append(whole[2])
        found.append(row)
    return found


REWARDS = [[1.0, 0.0, 0.5, 0.25], [0.0, 0.0, 1.0, 0.0], [2.0, 1.0, -1.0, 0.0]]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_centred(scale: str) -> None:
    x = np.array(REWARDS)
    unit = {"group": x.std(1, ddof=1, keepdims=True) + 1e-4, "batch": x.std(ddof=1) + 1e-4, "none": 1.0}[scale]
    np.testing.assert_allclose(taught("centred", judged(REWARDS), scale=scale), (x - x.mean(1, keepdims=True)) / unit, atol=1e-12)


def test_leave_one_out() -> None:
    x = np.array(REWARDS)
    np.testing.assert_allclose(taught("leave_one_out", judged(REWARDS)), x - (x.sum(1, keepdims=True) - x) / 3, atol=1e-12)
    assert taught("leave_one_out", judged([[3.0]])) == [[0.0]]


def test_greedy_baseline_and_plain() -> None:
    groups = [[outcome(1.0, baseline=0.25), outcome(0.0, baseline=0.25)]]
    assert taught("greedy_baseline", groups) == [[0.75, -0.25]]
    assert taught("plain", groups) == [[1.0, 0.0]]
    assert CREDITS["greedy_baseline"].needs == {"greedy"}


def test_a_penalty_is_part_of_what_an_answer_got() -> None:
    groups = [[outcome(1.0, penalties=[0.1, 0.2, 0.1, 0.1]), outcome(1.0, penalties=[0.0] * 4)]]
    assert contrast(groups[0])
    np.testing.assert_allclose(taught("centred", groups, scale="none"), [[-0.25, 0.25]])


def test_decoupled_gives_each_reward_its_say() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(3, 4)) * 0.01, rng.normal(size=(3, 4)) * 100
    groups = [[outcome(a + b, parts={"small": a, "large": b}) for a, b in zip(*row, strict=True)] for row in zip(small, large, strict=True)]

    def scaled(x: Any) -> Any:
        return (x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-4)

    total = scaled(small) + scaled(large)
    np.testing.assert_allclose(taught("decoupled", groups), (total - total.mean()) / (total.std(ddof=1) + 1e-4), atol=1e-9)
    centred = np.array(taught("centred", groups))
    assert abs(np.corrcoef(small.ravel(), np.array(taught("decoupled", groups)).ravel())[0, 1]) > abs(
        np.corrcoef(small.ravel(), centred.ravel())[0, 1]
    )


@pytest.mark.parametrize("group_mean", [False, True])
def test_batch_normalised_counts_what_is_to_come(group_mean: bool) -> None:
    groups = [[outcome(1.0, penalties=[0.1, 0.2, 0.3, 0.4]), outcome(0.0, penalties=[0.0, 0.0, 0.0, 0.5])]]
    rewards = np.array([1.0, 0.0]) - (0.5 if group_mean else 0.0)
    returns = rewards[:, None] - np.array([[1.0, 0.9, 0.7, 0.4], [0.5, 0.5, 0.5, 0.5]])
    wanted = (returns - returns.mean()) / (returns.std(ddof=1) + 1e-4)
    (found,) = CREDITS["batch_normalised"].bind({"group_mean": group_mean})(groups)
    np.testing.assert_allclose([sequence.facts["advantage"][2:] for sequence in found], wanted, atol=1e-12)  # type: ignore[index]


def test_gae_is_the_sum_of_discounted_errors() -> None:
    rng, discount, decay = np.random.default_rng(1), 0.9, 0.8
    rewards, values = rng.normal(size=6), rng.normal(size=6)
    errors = rewards + discount * np.append(values[1:], 0.0) - values
    wanted = [sum((discount * decay) ** (k - t) * errors[k] for k in range(t, 6)) for t in range(6)]
    np.testing.assert_allclose(estimate(list(rewards), list(values), discount=discount, decay=decay), wanted, atol=1e-12)
    ends = estimate(list(rewards), list(values), discount=1.0, decay=1.0)
    np.testing.assert_allclose(ends, rewards[::-1].cumsum()[::-1] - values, atol=1e-12)


def test_gae_pays_at_the_last_learned_token_and_skips_others() -> None:
    tool = Sequence([7] * 8, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    groups = [[Outcome(tool, 1.0, penalties=[0.1] * 4, values=[0.5, 0.4, 0.3, 0.2])]]
    ((sequence,),) = CREDITS["gae"].bind({"whiten": False})(groups)
    wanted = estimate([-0.1, -0.1, -0.1, 0.9], [0.5, 0.4, 0.3, 0.2], discount=1.0, decay=0.95)
    advantage, returns, old = (sequence.facts[name] for name in ("advantage", "returns", "old_value"))
    assert isinstance(advantage, list) and isinstance(returns, list)
    assert [advantage[j] for j in (2, 3, 6, 7)] == wanted and advantage[4:6] == [0.0, 0.0]
    assert old == [0.0, 0.0, 0.5, 0.4, 0.0, 0.0, 0.3, 0.2]
    np.testing.assert_allclose([returns[j] for j in (2, 3, 6, 7)], np.add(wanted, [0.5, 0.4, 0.3, 0.2]))


def test_whitened_advantages_have_mean_zero_and_deviation_one() -> None:
    rng = random.Random(3)
    groups = [[outcome(rng.random(), values=[rng.random() for _ in range(4)])] for _ in range(5)]
    whole = np.array([group[0].facts["advantage"][2:] for group in CREDITS["gae"].bind({})(groups)])  # type: ignore[index]
    assert abs(whole.mean()) < 1e-9 and abs(whole.std(ddof=1) - 1) < 1e-6


def test_pairs_and_bests() -> None:
    groups = judged([[0.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    assert CREDITS["best_and_worst"](groups) == [(groups[0][1].sequence, groups[0][0].sequence)]
    assert CREDITS["best"](groups) == [(groups[0][1].sequence,), (groups[1][0].sequence,)]
    assert CREDITS["best"].bind({"least": 1.5})(groups) == [(groups[0][1].sequence,)]
    assert len(CREDITS["keep"](groups)) == 6


@pytest.mark.parametrize("name", ["centred", "leave_one_out", "decoupled", "batch_normalised"])
def test_equal_rewards_teach_nothing(name: str) -> None:
    assert np.abs(taught(name, judged([[1.0] * 4, [1.0] * 4]))).max() == 0


def test_a_scheme_is_strict_about_its_settings() -> None:
    with pytest.raises(HoneError, match="scale"):
        CREDITS["centred"].bind({"scal": "group"})
