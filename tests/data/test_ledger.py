"""The ledger: each row has exactly one fate, the numbers add up, and it survives the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.core.types import Origin
from hone.data.ledger import Fate, Ledger
from hone.report.fates import read_fates
from tests.data.kit import fault


def filled(fates: list[tuple[str, int]]) -> Ledger:
    ledger = Ledger()
    for number, (kind, tokens) in enumerate(fates, start=1):
        origin = Origin("a.jsonl" if number % 3 else "b.jsonl", number)
        if kind == "trained":
            ledger.trained(origin, tokens)
        elif kind == "held_out":
            ledger.held_out(origin, tokens)
        elif kind == "truncated":
            ledger.truncated(origin, tokens, 2 * tokens)
        elif kind == "masked":
            ledger.masked(origin, "its author wants it so")
        else:
            ledger.dropped(origin, f"D02{tokens % 3}", "a reason")
    ledger.total(len(fates))
    return ledger


KINDS = st.sampled_from(["trained", "held_out", "truncated", "masked", "dropped"])


@given(st.lists(st.tuples(KINDS, st.integers(1, 10_000)), max_size=40))
def test_it_adds_up_and_comes_back_from_json(tmp_path_factory: pytest.TempPathFactory, fates: list[tuple[str, int]]) -> None:
    ledger = filled(fates)
    ledger.check()
    document = ledger.to_json()
    kinds = ("trained", "held_out", "truncated", "masked", "dropped")
    assert sum(document[kind]["rows"] for kind in kinds) == document["total"] == len(fates)
    assert all(sum(document[kind]["reasons"].values()) == document[kind]["rows"] for kind in ("masked", "dropped"))
    path = tmp_path_factory.mktemp("run") / "ledger.json"
    ledger.save(path)
    again = Ledger.load(path)
    assert again.fates == ledger.fates
    assert again.to_json() == document


def test_it_is_read_by_the_report() -> None:
    found = read_fates(filled([("trained", 5), ("trained", 6), ("truncated", 4), ("dropped", 1), ("masked", 1), ("held_out", 9)]).to_json())
    assert found is not None
    assert found.adds_up
    assert (found.rows("trained"), found.rows("dropped"), found.rows("held_out")) == (2, 1, 1)
    assert [fate.reason for fate in found.all if fate.kind == "dropped"] == ["D021 a reason"]


def test_a_row_cannot_have_two_fates() -> None:
    ledger = filled([("trained", 5)])
    with pytest.raises(AssertionError, match="two fates"):
        ledger.dropped(Origin("a.jsonl", 1), "D020", "empty")


def test_a_row_without_a_fate_is_found() -> None:
    ledger = filled([("trained", 5)])
    ledger.total(2)
    with pytest.raises(AssertionError, match="1 fates for 2 rows"):
        ledger.check()
    with pytest.raises(AssertionError):
        ledger.to_json()


def test_the_fate_of_any_row_is_told() -> None:
    ledger = filled([("trained", 1500), ("truncated", 4), ("masked", 1), ("dropped", 1), ("held_out", 2)])
    told = [str(ledger.fate(Origin("a.jsonl" if number % 3 else "b.jsonl", number))) for number in range(1, 6)]
    assert told == [
        "trained: 1,500 tokens are learned",
        "truncated: 4 tokens are learned, 8 were cut off",
        "masked: its author wants it so",
        "dropped: D021 a reason",
        "held out: 2 tokens are evaluated",
    ]
    assert ledger.fate(Origin("a.jsonl", 99)) is None


def test_many_rows_take_little_room(tmp_path: Path) -> None:
    ledger = filled([("trained", 100 + i % 50) for i in range(30_000)])
    ledger.save(tmp_path / "ledger.json")
    assert (tmp_path / "ledger.json").stat().st_size < 20 * 30_000


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"total": 1, "sources": {"a": {"fates": "x", "tokens": [1]}}}'])
def test_a_damaged_ledger_is_said_to_be_that(text: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with fault("D015", where="ledger.json"):
        Ledger.load(path)


def test_a_ledger_in_which_a_row_is_missing_is_noticed(tmp_path: Path) -> None:
    document = filled([("trained", 5), ("dropped", 1)]).to_json()
    (tmp_path / "ledger.json").write_text(json.dumps(document | {"total": 3}))
    with pytest.raises(AssertionError):
        Ledger.load(tmp_path / "ledger.json")


def test_fates_are_words() -> None:
    assert str(Fate("masked", reason="why")) == "masked: why"
