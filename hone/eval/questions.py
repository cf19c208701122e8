"""From rows to questions: each answer of a conversation is asked for once, after the reference history before it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hone.core.types import Conversation, Example, Origin

TASK = "task"
"""Column that says which task a row belongs to."""
ONE_TASK = "answers"
"""What rows without that column are called."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what should come back."""

    task: str
    history: Conversation
    expected: str
    tools: tuple[Mapping[str, Any], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    """The row's other columns, for graders that need more than the expected text."""
    origin: Origin = Origin("memory", 0)
    turn: int = 0
    """Which message of the conversation is asked for."""

    @property
    def prompt(self) -> str:
        """The last thing said before the answer."""
        return self.history[-1].content


def questions(rows: Iterable[Example]) -> Iterator[Question]:
    """Every answer that has words and is not marked with weight 0. Of a preference the chosen one counts; raw text asks nothing."""
    for row in rows:
        for conversation in row.conversations[:1]:
            yield from _of(row, conversation)


def _of(row: Example, conversation: Conversation) -> Iterator[Question]:
    task = str(row.columns.get(TASK) or ONE_TASK)
    for turn, message in enumerate(conversation):
        if message.role == "assistant" and turn and message.content and message.weight != 0:
            yield Question(task, conversation[:turn], message.content, row.tools, row.columns, row.origin, turn)
