"""Labels are found in the data, heard in answers, and scored as F1."""

from __future__ import annotations

import pytest

from hone.eval.labels import codes, label_in, label_set, macro_f1

LABELS = ("negative", "neutral", "positive")


def test_few_short_texts_that_come_again_are_labels() -> None:
    assert label_set([*LABELS] * 6) == LABELS
    assert label_set(["yes", "no"] * 5) == ("no", "yes")


@pytest.mark.parametrize(
    "expected",
    [
        [],
        ["yes"] * 20,
        ["yes", "no"] * 4,
        [f"answer {i}" for i in range(40)],
        ["a" * 41, "b"] * 10,
        [f"{i}" for i in range(31)] * 5,
        ["", "x"] * 9,
    ],
    ids=["nothing", "one", "too few rows", "all different", "too long", "too many", "empty"],
)
def test_what_is_no_set_of_labels(expected: list[str]) -> None:
    assert label_set(expected) == ()


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("positive", "positive"),
        (" Positive.\n", "positive"),
        ("The headline is neutral, I think.", "neutral"),
        ("positive or negative", None),
        ("nonpositive", None),
        ("", None),
    ],
)
def test_the_label_that_an_answer_names(answer: str, label: str | None) -> None:
    assert label_in(answer, LABELS) == label


def test_a_label_inside_another() -> None:
    labels = ("good", "very good", "bad")
    assert label_in("It was very good", labels) == "very good"
    assert label_in("good", labels) == "good"


def test_chinese_labels_need_no_spaces() -> None:
    assert label_in("这条新闻的情感是正面的。", ("正面", "负面")) == "正面"


def test_macro_f1_by_hand() -> None:
    # a: right 3, given 3, hit 2; b: right 2, given 1, hit 1; c: right 1, given 1, hit 0
    right, said = ["a", "a", "a", "b", "b", "c"], ["a", "a", "c", "b", None, "a"]
    assert macro_f1(codes(right, said)) == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)
    assert macro_f1(codes(["a", "b"], ["a", "b"])) == 1
    assert codes(["a"], ["never right"]).tolist() == [[0, -1]]
