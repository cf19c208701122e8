"""What became of every source row, read from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hone.report.folder import Record, record
from hone.report.numbers import finite

KINDS = ("trained", "held_out", "truncated", "masked", "dropped")
NAMES = {
    "trained": "trained whole",
    "held_out": "held out",
    "truncated": "trained, cut to the limit",
    "masked": "read, nothing to learn",
    "dropped": "left out",
}


class Fate(NamedTuple):
    """So many rows met this end, for this reason."""

    kind: str
    rows: int
    tokens: int
    reason: str

    @property
    def name(self) -> str:
        return NAMES[self.kind]


@dataclass(frozen=True)
class Fates:
    """All rows of the sources, each with exactly one fate if the ledger is right."""

    total: int
    all: Sequence[Fate]

    def rows(self, kind: str) -> int:
        return sum(fate.rows for fate in self.all if fate.kind == kind)

    @property
    def counted(self) -> int:
        return sum(fate.rows for fate in self.all)

    @property
    def adds_up(self) -> bool:
        return self.counted == self.total

    def share(self, kind: str) -> float:
        return self.rows(kind) / max(1, self.counted)


def read_fates(ledger: Record) -> Fates | None:
    """The fates of a ledger.json, or None if there is nothing in it."""
    total = finite(ledger.get("total"))
    if total is None:
        return None
    found: list[Fate] = []
    for kind in KINDS:
        entry = record(ledger.get(kind))
        reasons = record(entry.get("reasons")) or {"": entry.get("rows", 0)}
        tokens = int(finite(entry.get("tokens")) or 0)
        for i, (reason, rows) in enumerate(reasons.items()):
            if number := int(finite(rows) or 0):
                found.append(Fate(kind, number, tokens if i == 0 else 0, str(reason)))
    return Fates(int(total), found)
