"""Is there something to learn, and do the turns follow each other? What is mended, what is noted, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.core.errors import HoneError
from hone.core.types import Example, Message, Origin
from hone.data.checks import Checked, check
from tests.data.kit import fault

ORIGIN = Origin("rows.jsonl", 7)
CALL = {"type": "function", "function": {"name": "look", "arguments": {}}}


def made(*said: tuple[str, str] | Message) -> Example:
    messages = tuple(one if isinstance(one, Message) else Message(*one) for one in said)
    return Example((messages,), origin=ORIGIN)


def roles(checked: Checked) -> list[str]:
    return [one.role for one in checked.example.conversations[0]]


def codes(checked: Checked) -> list[str]:
    return [note.code for note in checked.notes]


def test_what_is_in_order_stays_as_it_is() -> None:
    example = made(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Goodbye"))
    assert check(example) == Checked(example)
    assert check(example).example is example
    text = Example(text="A tale.", origin=ORIGIN)
    assert check(text) == Checked(text)


@pytest.mark.parametrize(
    ("example", "code"),
    [
        (made(), "D020"),
        (made(("user", "Hi")), "D021"),
        (made(("system", "x"), ("user", "Hi"), ("user", "Hello?")), "D021"),
        (made(("user", "Hi"), ("assistant", "")), "D027"),
        (made(("user", "Hi"), ("assistant", " \n")), "D027"),
        (made(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "")), "D027"),
        (Example(text=" \n", origin=ORIGIN), "D027"),
        (Example((made(("user", "a"), ("assistant", "b")).conversations * 2), origin=ORIGIN), "P001"),
    ],
)
def test_where_nothing_can_be_learned_the_row_is_refused(example: Example, code: str) -> None:
    with fault(code, where="rows.jsonl:7", fix="left out and counted"):
        check(example)


def test_an_empty_answer_is_named_by_its_number() -> None:
    with fault("D027", where="rows.jsonl:7, message 4"):
        check(made(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "")))


def test_an_answer_may_be_empty_if_it_calls_a_tool_or_is_not_learned() -> None:
    call = Message("assistant", "", tool_calls=(CALL,))
    assert not check(made(("user", "a"), call, ("tool", "x"), ("assistant", "b"))).notes
    assert not check(made(("user", "a"), Message("assistant", "", weight=0.0), ("user", "b"), ("assistant", "c"))).notes


def test_a_tail_without_an_answer_is_cut_off_and_noted() -> None:
    checked = check(made(("user", "a"), ("assistant", "b"), ("user", "c"), ("tool", "d")))
    assert roles(checked) == ["user", "assistant"]
    assert codes(checked) == ["D026"]


def test_neighbours_of_one_role_are_joined_and_noted() -> None:
    checked = check(made(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("assistant", "e")))
    assert [one.content for one in checked.example.conversations[0]] == ["a\nb", "c\nd\ne"]
    assert codes(checked) == ["D025", "D025"], "each kind once"


def test_neighbours_with_something_of_their_own_are_not_joined() -> None:
    call = Message("assistant", "", tool_calls=(CALL,))
    kept = [
        [("user", "a"), call, ("tool", "x"), ("tool", "y"), ("assistant", "b")],
        [("user", "a"), Message("assistant", "b", weight=0.0), Message("assistant", "c", weight=1.0)],
        [Message("user", "a", name="ann"), Message("user", "b", name="bob"), ("assistant", "c")],
        [("user", "a"), ("assistant", "I look."), call, ("tool", "x"), ("assistant", "b")],
    ]
    for said in kept:
        assert len(check(made(*said)).example.conversations[0]) == len(said)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([("assistant", "Welcome!"), ("user", "a"), ("assistant", "b")], "the assistant speaks first"),
        ([("user", "a"), ("system", "Be brief."), ("assistant", "b")], "a system prompt stands in the middle"),
        ([("user", "a"), ("assistant", "b"), ("tool", "x"), ("assistant", "c")], "a tool answers without having been called"),
    ],
)
def test_what_is_odd_but_meant_is_noted_and_stays(said: list[Any], text: str) -> None:
    checked = check(made(*said))
    assert len(roles(checked)) == len(said)
    assert [(note.code, note.text) for note in checked.notes] == [("D025", text)]


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.sampled_from(["", "x", "some text"])), max_size=8))
def test_whatever_the_order_the_result_ends_with_an_answer_or_is_refused(said: list[tuple[str, str]]) -> None:
    try:
        checked = check(made(*said))
    except HoneError as error:
        assert error.code in ("D020", "D021", "D027")
        return
    assert roles(checked)[-1] == "assistant"
    assert all(one.content.strip() for one in checked.example.conversations[0] if one.role == "assistant")
    assert check(checked.example).example == checked.example, "mending is done once"
