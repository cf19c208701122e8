"""Thumbs up and down in a talk, kept as pairs of answers to one prompt that `hone train dpo` learns from as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.core.types import Message


@dataclass
class Thumbs:
    """The file of pairs, and the answers to the present question that were turned down."""

    path: Path
    rejected: list[str] = field(default_factory=list)
    prompt: list[Message] = field(default_factory=list)

    def ask(self, prompt: Sequence[Message]) -> None:
        """A new question; what was said to another one does not count any more."""
        if list(prompt) != self.prompt:
            self.prompt, self.rejected = list(prompt), []

    def down(self, answer: str) -> None:
        """Remember an answer as the worse one."""
        if answer not in self.rejected:
            self.rejected.append(answer)

    def up(self, answer: str) -> int:
        """Write a pair for each answer that was turned down and differs; returns how many."""
        pairs = [self._pair(answer, worse) for worse in self.rejected if worse != answer]
        if pairs:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
        self.rejected = []
        return len(pairs)

    def _pair(self, chosen: str, rejected: str) -> dict[str, Any]:
        sides = {"chosen": chosen, "rejected": rejected}
        answers = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
        return {"prompt": [message.to_dict() for message in self.prompt], **answers}
