"""Prompts to be answered, from rows of many shapes; whatever else a row holds is for the rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hone.core.errors import HoneError
from hone.core.types import Conversation, Message, Origin
from hone.data.chat import ChatTemplate
from hone.data.formats import ANSWERS
from hone.data.loaders import load
from hone.data.rendering import Tools
from hone.data.rows import Row
from hone.data.turns import messages, tools
from hone.rollout.rewards import gym

ASKED = ("prompt", "messages", "conversations", "conversation", "question", "instruction", "problem", "query", "user", "input", "text")
"""Columns that are looked for, in this order."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked, as messages and as the tokens after which it writes."""

    conversation: Conversation
    ids: list[int]
    row: Mapping[str, Any]
    """All columns, and `answer`: what is expected, where the row says so."""
    origin: Origin
    tools: Tools = ()


def read_prompts(source: str, template: ChatTemplate, *, system: str | None = None, room: int | None = None) -> list[Prompt]:
    """All prompts of a file, folder or hub id, or of `gym:TASK`. `room` is the most tokens that a prompt may have.

    Raises R010 for a row without a prompt, R011 for one that is too long, and what reading a source raises.
    """
    if source.startswith(gym.PREFIX):
        rows: Iterable[Row] = (Row(Origin(source, i), columns) for i, columns in enumerate(gym.rows(source), start=1))
    else:
        rows = load(source)
    return [as_prompt(row, template, system=system, room=room) for row in rows]


def as_prompt(row: Row, template: ChatTemplate, *, system: str | None = None, room: int | None = None) -> Prompt:
    """One row as a prompt. Raises R010 and R011."""
    asked, expected = _split(_conversation(row))
    if not asked or asked[-1].role not in ("user", "tool"):
        raise HoneError("R010", "nobody asks anything in this row", where=str(row.origin), fix="let the prompt end with a user's message")
    if system and asked[0].role != "system":
        asked = (Message("system", system), *asked)
    offered = tools(row.columns.get("tools"), row.origin)
    ids = template.prompt_ids(asked, offered)
    if room is not None and len(ids) > room:
        what = f"a prompt of {len(ids)} tokens leaves no room for an answer: there is place for {room}"
        fix = "shorten or remove it, lower rollout.sampling.max_new_tokens, or take a model with a longer context"
        raise HoneError("R011", what, where=str(row.origin), fix=fix)
    return Prompt(asked, ids, _with_answer(row.columns, expected), row.origin, offered)


def _conversation(row: Row) -> Conversation:
    name = next((name for name in ASKED if row.columns.get(name)), None)
    if name is None:
        what = f"the row has no prompt among its columns: {', '.join(map(str, row.columns)) or 'none'}"
        raise HoneError("R010", what, where=str(row.origin), fix=f"call the column one of {', '.join(ASKED[:6])}")
    value = row.columns[name]
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        below = row.columns.get("input") if name in ("prompt", "instruction") else None
        return (Message("user", f"{value}\n\n{below}" if below else value),)
    return messages(value, row.origin)


def _split(talk: Conversation) -> tuple[Conversation, str | None]:
    """The messages before the last answer, and that answer."""
    if talk and talk[-1].role == "assistant":
        return talk[:-1], talk[-1].content
    return talk, None


def _with_answer(columns: Mapping[str, Any], expected: str | None) -> dict[str, Any]:
    if columns.get("answer") is not None:
        return dict(columns)
    found = expected if expected is not None else next((columns[name] for name in ANSWERS if columns.get(name) is not None), None)
    return {**columns, "answer": found} if found is not None else dict(columns)
