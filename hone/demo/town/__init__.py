"""A made-up port town, drawn from a seed: documents to pre-train on, and questions to fine-tune with.

Tallowmere has shops, ships, companies and people. Nothing in it exists elsewhere, so a model can only know it from these documents.

    town = Town(seed=7)
    town.documents()                  # plain prose: almanac, letters, contracts, till rolls, news ...
    town.documents(volumes=10)        # the same facts told ten times in fresh words; contracts and sums are new each time
    town.documents(held_out=True)     # never to be trained, for bits per byte
    town.instructions("train")        # messages: facts, sentiment, support, contracts, arithmetic
    town.instructions("held_out")     # other entities and other phrasings of the same tasks
    town.preferences("train")         # polite, short and signed against curt, rambling or unsigned
    town.labels("train")              # single answers with a label: wanted or not
    town.checkable("train")           # prompts whose answer is one number
    town.new_facts("train")           # facts that no document tells; "held_out" asks for the same facts in other words

How the parts fit. The documents tell each of the 600 facts (a shop has an owner, a street, a ware, an opening hour and a closed
day; a ship a captain, a berth and a cargo) more than thirty times a volume, in some fifteen wordings and many orders, because
a fact that was always read in one wording cannot be asked for in another (arXiv 2309.14316). Contracts, policies and prices are drawn
afresh each time and then quoted, applied and added up, so that reading from context is learned and not the content.
Of all entities the last quarter, and of all phrasings some, are kept for the held-out questions: neither occurs in the training
questions of the same task. Every answer is a whole sentence with one right wording, so that exact match is a fair measure.

On disk, by `town.write(folder)` or `python -m hone.demo.town FOLDER`: a folder for each part with train.jsonl and held_out.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hone.demo.town import news, papers, preferences, prose, questions, trade
from hone.demo.town.document import Document
from hone.demo.town.questions import Question, Row
from hone.demo.town.world import Ship, Shop, World, build

__all__ = ["Document", "Question", "Ship", "Shop", "Town", "World"]

SPLITS = ("train", "held_out")
ROOMS = {"prose": prose.write, "papers": papers.write, "trade": trade.write, "news": news.write}
"""The kinds of documents, in the order in which a volume draws them."""


class Town:
    """One town. The same seed gives the same bytes everywhere."""

    def __init__(self, seed: int = 7) -> None:
        self.seed = seed
        self.world = build(seed)

    def documents(self, held_out: bool = False, volumes: int = 1, shares: Mapping[str, float] | None = None) -> list[Document]:
        """Plain documents, shuffled within each volume. Volume 0 is the same whatever `volumes` is.

        A volume has about 2.9 million characters and states every fact of the town about thirty times or more.
        `shares` says how much of each kind of paper (prose, papers, trade, news) a volume holds; what is not named comes whole.
        With `held_out` the result is a small volume (3 %) from a stream of its own.
        """
        if held_out:
            return self._volume("held out", dict.fromkeys(ROOMS, 0.03))
        whole = dict.fromkeys(ROOMS, 1.0) | dict(shares or {})
        return [document for number in range(volumes) for document in self._volume(number, whole)]

    def questions(self, split: str = "train") -> list[Question]:
        """The instruction data before it becomes rows: with entity and frames, which must not leak."""
        return questions.ask(self.world, split)

    def instructions(self, split: str = "train") -> list[Row]:
        """Rows {"id", "task", "messages"}; the reference answers are the assistant's messages. Task after task, not shuffled."""
        return questions.rows(self.questions(split), split)

    def preferences(self, split: str = "train") -> list[Row]:
        """Rows {"id", "task", "fault", "prompt", "chosen", "rejected"}, all three as messages."""
        return list(preferences.preferences(self.world, split))

    def labels(self, split: str = "train") -> list[Row]:
        """Rows {"id", "task", "prompt", "completion", "label"}."""
        return list(preferences.labels(self.world, split))

    def checkable(self, split: str = "train") -> list[Row]:
        """Rows {"id", "task", "prompt", "answer"}; the answer is a number, written as text."""
        return list(preferences.checkable(self.world, split))

    def new_facts(self, split: str = "train") -> list[Row]:
        """Rows {"id", "task", "fact", "messages"} about shops that occur in no document."""
        return list(preferences.new_facts(self.world, split))

    def write(self, folder: str | Path, volumes: int = 1) -> list[Path]:
        """Write everything as JSON lines, and the held-out documents also as plain text; returns the files."""
        parts = {
            "instructions": self.instructions, "preferences": self.preferences, "labels": self.labels,
            "checkable": self.checkable, "new_facts": self.new_facts,
        }  # fmt: skip
        root, train, unseen = Path(folder), self.documents(volumes=volumes), self.documents(held_out=True)
        files = [
            _save(root / "documents" / "train.jsonl", map(_fields, train)),
            _save(root / "documents" / "held_out.jsonl", map(_fields, unseen)),
        ]
        plain = root / "documents" / "held_out.txt"
        plain.write_text("\n\n".join(document.text for document in unseen) + "\n", encoding="utf-8", newline="\n")
        return [*files, plain, *(_save(root / part / f"{split}.jsonl", make(split)) for part, make in parts.items() for split in SPLITS)]

    def _volume(self, name: object, shares: Mapping[str, float]) -> list[Document]:
        rng = self.world.rng("volume", name)
        documents = [document for room, write in ROOMS.items() for document in write(self.world, rng, shares[room])]
        rng.shuffle(documents)
        return documents


def _fields(document: Document) -> Mapping[str, Any]:
    return {"title": document.title, "kind": document.kind, "text": document.text}


def _save(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")
    return path
