"""The rewards that look at text."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.rollout.rewards import REWARDS, Fault, Tools, Written


def score(name: str, text: str, row: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **fields: Any) -> Any:
    return REWARDS[name].bind(Tools(), settings or {})([Written(text, row=row or {}, **fields)])[0]


@pytest.mark.parametrize(
    ("name", "text", "row", "settings", "wanted"),
    [
        ("exact", " seven\u00a0coins\n", {"answer": "seven coins"}, {}, 1.0),
        ("exact", "Seven coins", {"answer": "seven coins"}, {}, 0.0),
        ("exact", "Seven coins", {"answer": "seven coins"}, {"ignore_case": True}, 1.0),
        ("contains", "It is PARIS.", {"answer": "Paris"}, {}, 1.0),
        ("contains", "At your service, the house.", {}, {"text": "at your service"}, 1.0),
        ("number", "3 coins and 4 coins make 7 coins.", {"answer": "7"}, {}, 1.0),
        ("number", "7 or 8", {"answer": 7}, {}, 0.0),
        ("number", "about 1,200.50", {"answer": "#### 1200.5"}, {}, 1.0),
        ("number", "no idea", {"answer": "7"}, {}, 0.0),
        ("number", "10.4", {"answer": "10"}, {"tolerance": 0.05}, 1.0),
        ("length", "one two three", {}, {"most": 3}, 1.0),
        ("length", "one two three four", {}, {"most": 2}, 0.5),
        ("length", "one", {}, {"most": 4, "least": 2}, 0.5),
        ("regex", "call 555-1234 now", {}, {"pattern": r"\d{3}-\d{4}"}, 1.0),
        ("regex", "call 555-1234 now", {}, {"pattern": r"\d{3}-\d{4}", "whole": True}, 0.0),
        ("format", "<think>a\nb</think>\n<answer>7</answer>", {}, {}, 1.0),
        ("format", "<think>a</think><answer>7</answer> bye", {}, {}, 0.0),
        ("format", "<answer>7</answer>", {}, {}, 0.0),
    ],
)
def test_scores(name: str, text: str, row: dict[str, Any], settings: dict[str, Any], wanted: float) -> None:
    assert score(name, text, row, settings) == wanted


def test_overlong_is_soft_at_the_end_and_hard_for_cut_answers() -> None:
    settings = {"most": 100, "cushion": 20}
    found = [
        score("overlong", "", settings=settings, tokens=n, stopped=stopped)
        for n, stopped in ((80, True), (90, True), (100, True), (50, False))
    ]
    assert found == [0.0, -0.5, -1.0, -1.0]
    assert score("finished", "", stopped=False) == 0.0


def test_a_row_without_the_column_is_a_fault_of_that_answer() -> None:
    found = score("number", "7", {"question": "?"})
    assert isinstance(found, Fault) and found.code == "R003" and "question" in found.what


def test_settings_are_strict_and_come_from_the_signature() -> None:
    with pytest.raises(HoneError, match="tolerance"):
        REWARDS["number"].bind(Tools(), {"tolerence": 1})
    with pytest.raises(HoneError) as caught:
        REWARDS["length"].bind(Tools(), {"most": 0})
    assert caught.value.code == "C001"


def test_a_pattern_that_never_ends_is_stopped() -> None:
    reward = REWARDS["regex"].bind(Tools(seconds=0.5), {"pattern": r"(a+)+$"})
    slow, quick = reward([Written("a" * 60 + "b"), Written("aaa")])
    assert isinstance(slow, Fault) and slow.code == "R004"
    assert quick == 1.0


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is in the extra rl")
def test_mathematics_is_compared_by_what_it_means() -> None:
    reward = REWARDS["maths"].bind(Tools(seconds=60), {})
    row = {"answer": r"\frac{1}{2}"}
    texts = [r"So it is $\boxed{0.5}$.", r"$\frac{2}{4}$", r"$\frac{1}{3}$", "I do not know", r"$__import__('os').system('true')$"]
    assert reward([Written(text, row=row) for text in texts]) == [1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is in the extra rl")
def test_tasks_of_reasoning_gym_are_made_and_checked() -> None:
    from hone.rollout.rewards.gym import rows

    first, second = [*rows("gym:leg_counting?size=2&seed=1")]
    assert first["prompt"] and first != second
    reward = REWARDS["gym"].bind(Tools(seconds=60), {})
    right, wrong = reward([Written(f"well <answer>{first['answer']}</answer>", row=first), Written("<answer>-1</answer>", row=first)])
    assert right == 1.0 and wrong < 1.0  # type: ignore[operator]
