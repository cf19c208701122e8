"""Where rows become groups of tokens: checked for what the tokenizer and the limits allow, and cached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from hone.core.errors import HoneError
from hone.core.faults import fault_point
from hone.core.types import Example, Group, Origin
from hone.data.cache import Cache
from hone.data.labels import label_of
from hone.data.ledger import Ledger
from hone.data.lengths import fit
from hone.data.notices import Notices
from hone.data.reading import Outcome
from hone.data.refusals import Refusals
from hone.data.settings import DataSettings, Overflow
from hone.data.split import example_key, prompt_key
from hone.data.tokenise import Tokeniser
from hone.data.unknown import Script

BATCH = 256
"""Rows that are tokenised together."""


class Entry(NamedTuple):
    """One row that can be learned from."""

    origin: Origin
    key: str
    """Short hash of its prompt."""
    indices: tuple[int, ...]
    """Its group in the cache, or several pieces."""
    learned: int
    cut: int
    copies: int
    label: str | None
    """The answer, where it may be one of a few labels."""


class Desk:
    """Takes rows from any number of sources; what was made of them, and what was wrong with them, is here afterwards.

    `limit` is the longest sequence that is made, `most` the longest that the model takes, where that is known.
    """

    def __init__(self, settings: DataSettings, tokeniser: Tokeniser, script: Script, *, limit: int, most: int | None = None) -> None:
        self.overflow, self.limit, self.most = settings.overflow, limit, most
        self.tokeniser, self.script = tokeniser, script
        self.cache, self.ledger, self.notices = Cache(), Ledger(), Notices()
        self.refusals = Refusals(self.ledger, skip_bad=settings.skip_bad)
        self.rows: Counter[str] = Counter()
        """File -> rows, good and bad."""
        self._seen: set[Origin] = set()
        self._said: set[str] = set()

    def take(self, outcomes: Iterator[Outcome]) -> list[Entry]:
        """Work on all rows of a source."""
        entries: list[Entry] = []
        while batch := list(islice(outcomes, BATCH)):
            fault_point("prepare")
            usable = [(one, example) for one in batch if (example := self._example(one)) is not None]
            if self.refusals.stopping:
                continue
            groups = self.tokeniser.groups([example for _, example in usable])
            for (outcome, example), group in zip(usable, groups, strict=True):
                entry = self._entry(outcome, example, group)
                entries += [entry] if entry is not None else []
        return entries

    def _example(self, outcome: Outcome) -> Example | None:
        """The row's example, if it can be learned from; otherwise its fate is noted."""
        origin, example = outcome.origin, outcome.example
        self._count(origin)
        for note in outcome.notes:
            self.notices.add(note.code, note.text, origin)
        if example is None:
            assert outcome.fault is not None
            self.refusals.add(origin, outcome.fault)
            return None
        if outcome.copies == 0:
            self.ledger.dropped(origin, "", "not drawn, as the weight of its source is below 1")
            return None
        if (fault := self.script.fault(example)) is not None:
            self.refusals.add(origin, fault)
            return None
        key = example_key(example)
        if key in self._said:
            self.notices.add("D035", "the same as an earlier row", origin)
        self._said.add(key)
        return example

    def _count(self, origin: Origin) -> None:
        if origin in self._seen:
            fix = "list it once; {path: FILE, weight: 2} shows it twice, and data.held_out=0.1 keeps a tenth of it aside"
            raise HoneError(
                "D038", "a file is read twice, in two sources or for both training and evaluation", where=origin.source, fix=fix
            )
        self._seen.add(origin)
        self.rows[origin.source] += 1

    def _entry(self, outcome: Outcome, example: Example, group: Group | HoneError) -> Entry | None:
        origin = outcome.origin
        if isinstance(group, HoneError):
            self.refusals.add(origin, group)
            return None
        if not all(sequence.learned for sequence in group):
            self.refusals.masked(origin, _masked(example))
            return None
        try:
            pieces, cut = fit(group, limit=self.limit, overflow=self._overflow(example), most=self.most)
        except HoneError as fault:
            self.refusals.add(origin, fault, stops=self.overflow == "error")
            return None
        if len(group) == 2 and pieces[0][0].tokens == pieces[0][1].tokens:
            what = f"the better and the worse answer are the same in their first {self.limit:,} tokens, or for this tokenizer"
            self.refusals.add(origin, HoneError("P001", what, where=str(origin), fix="raise data.max_length"))
            return None
        learned = sum(sequence.learned for piece in pieces for sequence in piece)
        indices = tuple(self.cache.append(piece) for piece in pieces)
        return Entry(origin, prompt_key(example), indices, learned, cut, outcome.copies, label_of(example))

    def _overflow(self, example: Example) -> Overflow:
        """Raw text has no beginning that matters more than its end, so nothing of it is cut off."""
        return "split" if example.text is not None and self.overflow == "truncate" else self.overflow


def _masked(example: Example) -> HoneError:
    said = " | ".join(f"{one.role}: {one.content[:60]}" for one in example.conversations[0]) if example.conversations else ""
    fix = "set data.learn, or give at least one answer a weight above 0"
    return HoneError("D029", f"nothing is learned in this row, all its weights are 0\n  {said[:200]}", where=str(example.origin), fix=fix)
