"""A conversation with one model, or with two side by side: what was said, what comes next, and the transcript."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.core.files import write_atomically
from hone.core.types import Message

if TYPE_CHECKING:
    from hone.cli.writers import Show, Writer
    from hone.rollout.answer import Answer


@dataclass(slots=True)
class Turn:
    """An answer, and how it went."""

    answer: Answer
    seconds: float
    context_full: bool

    @property
    def note(self) -> str:
        """Why it ended, and how fast it came."""
        speed = f"{len(self.answer.tokens)} tokens, {len(self.answer.tokens) / max(self.seconds, 1e-9):.0f}/s"
        if self.answer.stop_reason == "stop":
            return f"stop: {speed}"
        hint = "the model's context is full, /reset starts anew" if self.context_full else "cut, --max-new-tokens allows more"
        return f"length: {speed}; {hint}"


@dataclass
class Speaker:
    """One of the models of a talk, with its own history: in a comparison each goes on from what it said itself."""

    name: str
    writer: Writer
    system: str | None = None
    history: list[Message] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.history = [Message("system", self.system)] if self.system else []
        self.stops = []

    @property
    def asked(self) -> list[Message]:
        """What the last answer was an answer to."""
        return self.history[:-1]

    @property
    def last(self) -> str | None:
        """The last answer."""
        return self.history[-1].content if self.stops else None

    def unsay(self) -> str:
        """Forget the last answer and its question; returns the question."""
        question = self.history[-2].content
        self.history, self.stops = self.history[:-2], self.stops[:-1]
        return question

    def go_on_from(self, other: Speaker) -> None:
        """Take over another's last answer, so that both go on from the better one."""
        self.history = [*self.asked, other.history[-1]]

    def answer(self, question: str, show: Show, **sampling: Any) -> Turn | None:
        """Answer, showing the text as it comes; None, and nothing remembered, where the context has no room left."""
        asked, context = [*self.history, Message("user", question)], self.writer.context
        prompt = self.writer.prompt(asked)
        if context is not None and len(prompt) >= context:
            return None
        started = time.perf_counter()
        answer = self.writer.write(prompt, show, **sampling)
        self.history = [*asked, Message("assistant", answer.text)]
        self.stops.append(answer.stop_reason)
        return Turn(answer, time.perf_counter() - started, context is not None and len(prompt) + len(answer.tokens) >= context)


class Transcript:
    """What was said, as rows that can be trained on: a line of JSON for each conversation with each model."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self._closed: list[dict[str, Any]] = []

    def close(self, speakers: Iterable[Speaker]) -> None:
        """Keep these conversations as they are; others begin."""
        self._closed += self._rows(speakers)

    def save(self, path: Path, speakers: Iterable[Speaker]) -> int:
        """Write everything so far, the running conversations last; returns the number of lines. Nothing said, nothing written."""
        rows = [*self._closed, *self._rows(speakers)]
        if rows:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
        return len(rows)

    def _rows(self, speakers: Iterable[Speaker]) -> list[dict[str, Any]]:
        return [
            {"messages": [message.to_dict() for message in one.history], "model": one.name, "stop_reasons": one.stops, **self.facts}
            for one in speakers
            if one.stops
        ]


def transcript_path(folder: Path | None) -> Path:
    """A new file under the run's `chats`, or in the working folder, named after the time."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (f"{stamp}{ending}.jsonl" for ending in ("", *(f"-{i}" for i in range(2, 1000))))
    places = (folder / "chats" / name if folder is not None else Path(f"chat-{name}") for name in names)
    return next(path for path in places if not path.exists())
