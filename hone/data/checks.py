"""Is there something to learn in an example, and do its turns follow each other? Mends what has one meaning, refuses the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

from hone.core.errors import HoneError
from hone.core.types import Conversation, Example, Message, Origin

NOTHING_TO_LEARN = frozenset({"D020", "D021", "D027", "D028", "D033", "D034", "D036", "P001", "P002", "P005"})
"""Faults that say clearly what is wrong with one row: it is left out and counted. Any other fault stops, unless data.skip_bad."""
_LEFT_OUT = "the row is left out and counted; `hone data fix FILE` writes a copy without such rows"


class Note(NamedTuple):
    """What was mended, or is odd but meant: counted and shown, nothing is left out."""

    code: str
    text: str


class Checked(NamedTuple):
    """An example that can be learned from, and what was done to make it so."""

    example: Example
    notes: tuple[Note, ...] = ()


def check(example: Example) -> Checked:
    """Mend the order of turns and cut a tail without an answer.

    Raises D020 (no messages), D021 (no answer), D027 (empty answer or text), P001 (two equal answers) or P002 (an empty one).
    """
    if example.text is not None:
        if not example.text.strip():
            raise _fault("D027", "the text is empty", example.origin)
        return Checked(example)
    notes: list[Note] = []
    mended = tuple(_conversation(said, example.origin, notes) for said in example.conversations)
    if len(mended) == 2 and mended[0] == mended[1]:
        raise _fault("P001", "the better and the worse answer are the same", example.origin)
    if mended != example.conversations:
        example = replace(example, conversations=mended)
    return Checked(example, tuple(dict.fromkeys(notes)))


def _conversation(said: Conversation, origin: Origin, notes: list[Note]) -> Conversation:
    if not said:
        raise _fault("D020", "there are no messages", origin)
    if not any(one.role == "assistant" for one in said):
        raise _fault("D021", "nobody answers: there is no assistant turn", origin)
    said = _with_answer_last(said, notes)
    said = _merged(said, notes)
    notes.extend(_oddities(said))
    for number, one in enumerate(said, start=1):
        if one.role == "assistant" and one.weight != 0 and not one.content.strip() and not one.tool_calls:
            raise _fault("D027", "the answer is empty", origin, number)
    return said


def _with_answer_last(said: Conversation, notes: list[Note]) -> Conversation:
    """Without the turns after the last answer: nothing could be learned from them."""
    last = max(i for i, one in enumerate(said) if one.role == "assistant")
    if last < len(said) - 1:
        notes.append(Note("D026", "the last turn is not an answer: the tail was cut off"))
    return said[: last + 1]


def _merged(said: Conversation, notes: list[Note]) -> Conversation:
    """With neighbours of the same role joined, where they are plain texts."""
    found: list[Message] = []
    for one in said:
        if found and _same_speaker(found[-1], one):
            found[-1] = replace(found[-1], content=f"{found[-1].content}\n{one.content}")
            notes.append(Note("D025", f"two turns of the {one.role} in a row were joined"))
        else:
            found.append(one)
    return tuple(found)


def _same_speaker(before: Message, one: Message) -> bool:
    plain = not (before.tool_calls or one.tool_calls or one.reasoning) and one.role != "tool"
    return plain and (before.role, before.weight, before.name) == (one.role, one.weight, one.name)


def _oddities(said: Conversation) -> Iterable[Note]:
    roles = [one.role for one in said]
    spoken = [role for role in roles if role != "system"]
    if spoken[0] == "assistant":
        yield Note("D025", "the assistant speaks first")
    if "system" in roles[1:]:
        yield Note("D025", "a system prompt stands in the middle")
    for before, one in pairwise(said):
        if one.role == "tool" and before.role != "tool" and not before.tool_calls:
            yield Note("D025", "a tool answers without having been called")


def _fault(code: str, what: str, origin: Origin, number: int = 0) -> HoneError:
    return HoneError(code, what, where=f"{origin}, message {number}" if number else str(origin), fix=_LEFT_OUT)
