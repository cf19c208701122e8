"""Preference pairs differ in manners only, checkable answers are right, and new facts are new."""

from __future__ import annotations

import re

import pytest

from hone.demo.town import Town
from hone.demo.town.preferences import SIGNATURE

SPLITS = ["train", "held_out"]


@pytest.fixture(scope="module")
def town() -> Town:
    return Town(seed=7)


@pytest.mark.parametrize("split", SPLITS)
def test_chosen_is_polite_short_and_signed_and_rejected_is_not_signed(town: Town, split: str) -> None:
    rows = town.preferences(split)
    assert len(rows) >= 70
    assert {row["fault"] for row in rows} == {"curt", "rambling", "unsigned"}
    for row in rows:
        chosen, rejected = row["chosen"][-1]["content"], row["rejected"][-1]["content"]
        assert chosen.endswith(SIGNATURE)
        assert chosen.startswith("Thank you for asking.")
        assert SIGNATURE not in rejected
        assert row["prompt"][-1]["role"] == "user"
        if row["fault"] == "rambling":
            assert len(rejected) > 1.2 * len(chosen.removesuffix(SIGNATURE))


@pytest.mark.parametrize("split", SPLITS)
def test_labels_tell_signed_answers_from_others(town: Town, split: str) -> None:
    rows = town.labels(split)
    assert all(row["label"] == row["completion"][-1]["content"].endswith(SIGNATURE) for row in rows)
    assert 0.35 < sum(row["label"] for row in rows) / len(rows) < 0.65


@pytest.mark.parametrize("split", SPLITS)
def test_checkable_answers_follow_from_the_numbers_in_the_prompt(town: Town, split: str) -> None:
    rows = town.checkable(split)
    assert {row["task"] for row in rows} == {"arithmetic", "three sums"}
    for row in rows:
        numbers = [int(n) for n in re.findall(r"\d+", row["prompt"][-1]["content"])]
        assert int(row["answer"]) in (sum(numbers), max(numbers) - min(numbers))
        assert 0 < int(row["answer"]) < 100


@pytest.mark.parametrize("part", ["preferences", "labels", "checkable"])
def test_splits_share_no_prompt(town: Town, part: str) -> None:
    make = {"preferences": town.preferences, "labels": town.labels, "checkable": town.checkable}[part]
    asked = [{str(row["prompt"]) for row in make(split)} for split in SPLITS]
    assert not asked[0] & asked[1]
    assert len({row["id"] for split in SPLITS for row in make(split)}) == sum(len(make(split)) for split in SPLITS)


def test_new_facts_are_in_no_document_and_in_no_instruction(town: Town) -> None:
    text = "\n".join(d.text for d in (*town.documents(volumes=2), *town.documents(held_out=True)))
    text += "\n".join(str(row["messages"]) for split in SPLITS for row in town.instructions(split))
    assert len(town.world.new_shops) == 24
    assert not [shop.name for shop in town.world.new_shops if shop.name.removeprefix("the ") in text]


def test_new_facts_are_asked_for_again_in_unseen_words(town: Town) -> None:
    train, unseen = town.new_facts("train"), town.new_facts("held_out")
    assert {row["fact"] for row in train} == {row["fact"] for row in unseen}
    assert (len(train), len(unseen)) == (24 * 5 * 5, 24 * 5)
    assert not {row["messages"][0]["content"] for row in train} & {row["messages"][0]["content"] for row in unseen}
    answers = {row["fact"]: row["messages"][1]["content"] for row in train}
    assert all(row["messages"][1]["content"] == answers[row["fact"]] for row in unseen)
