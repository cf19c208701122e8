"""What became of every source row, read from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hone.report.folder import Record, record
from hone.report.numbers import count, finite

KINDS = ("trained", "held_out", "truncated", "masked", "dropped")
NAMES = {
    "trained": "trained whole",
    "held_out": "held out",
    "truncated": "trained, cut to the limit",
    "masked": "read, nothing to learn",
    "dropped": "left out",
}


class Fate(NamedTuple):
    """So many rows met this end, for this reason, with so many learned (or, held out, evaluated) tokens."""

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
    return Fates(int(total), [fate for kind in KINDS for fate in _of_kind(kind, record(ledger.get(kind)))])


def _of_kind(kind: str, entry: Record) -> list[Fate]:
    """One fate a reason where there are reasons, else one for the kind."""
    if reasons := record(entry.get("reasons")):
        return [Fate(kind, _whole(rows), 0, str(reason)) for reason, rows in reasons.items() if _whole(rows)]
    rows, cut = _whole(entry.get("rows")), _whole(entry.get("cut"))
    why = f"{count(cut, 'token')} cut off" if cut else ""
    return [Fate(kind, rows, _whole(entry.get("tokens")), why)] if rows else []


def _whole(value: object) -> int:
    return int(finite(value) or 0)
