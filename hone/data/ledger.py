"""What became of every source row: each has exactly one fate, and the numbers add up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from hone.core.errors import HoneError
from hone.core.files import write_atomically
from hone.core.types import Origin

Kind = Literal["trained", "held_out", "truncated", "masked", "dropped"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Fate(NamedTuple):
    """The end of one row."""

    kind: Kind
    tokens: int = 0
    """Learned tokens; of all copies, if the row is seen more than once in an epoch."""
    cut: int = 0
    """Tokens that were cut off to fit max_length."""
    reason: str = ""
    """For dropped and masked rows: the code, if there is one, and why."""

    def __str__(self) -> str:
        if self.kind == "truncated":
            return f"truncated: {self.tokens:,} tokens are learned, {self.cut:,} were cut off"
        said = {"trained": f"trained: {self.tokens:,} tokens are learned", "held_out": f"held out: {self.tokens:,} tokens are evaluated"}
        return said.get(self.kind, f"{self.kind}: {self.reason}")


class Ledger:
    """Fates by origin, in the order of the sources."""

    def __init__(self) -> None:
        self.fates: dict[Origin, Fate] = {}
        self._total: int | None = None

    def trained(self, origin: Origin, tokens: int) -> None:
        """All of it is learned from; `tokens` of it are targets."""
        self._add(origin, Fate("trained", tokens))

    def held_out(self, origin: Origin, tokens: int) -> None:
        """Kept aside; `tokens` of it are evaluated."""
        self._add(origin, Fate("held_out", tokens))

    def truncated(self, origin: Origin, kept: int, cut: int) -> None:
        """Its beginning is learned from, with `kept` targets; `cut` tokens of any kind are gone."""
        self._add(origin, Fate("truncated", kept, cut))

    def masked(self, origin: Origin, reason: str) -> None:
        """In order, but its author wants nothing of it learned."""
        self._add(origin, Fate("masked", reason=reason))

    def dropped(self, origin: Origin, code: str, reason: str) -> None:
        """Left out. `reason` is the same for all rows with the same fault, or there would be as many reasons as rows."""
        self._add(origin, Fate("dropped", reason=f"{code} {reason}".strip()))

    def _add(self, origin: Origin, fate: Fate) -> None:
        assert origin not in self.fates, f"{origin} has two fates: {self.fates[origin]} and {fate}"
        self.fates[origin] = fate

    def total(self, rows: int) -> None:
        """How many rows the sources have, counted where they are read."""
        self._total = rows

    def check(self) -> None:
        """Each row of the sources has a fate."""
        assert self._total == len(self.fates), f"{len(self.fates)} fates for {self._total} rows"

    def fate(self, origin: Origin) -> Fate | None:
        """What became of a row; None if there was no such row."""
        return self.fates.get(origin)

    def rows(self, kind: Kind) -> int:
        return sum(fate.kind == kind for fate in self.fates.values())

    def tokens(self, kind: Kind) -> int:
        return sum(fate.tokens for fate in self.fates.values() if fate.kind == kind)

    def reasons(self, kind: Kind) -> dict[str, int]:
        """Reason -> rows, the commonest first."""
        return dict(Counter(fate.reason for fate in self.fates.values() if fate.kind == kind).most_common())

    def to_json(self) -> dict[str, Any]:
        """Totals by kind, and under `sources` every row as a letter, a number of tokens and, where there is one, a reason."""
        self.check()
        document: dict[str, Any] = {"total": len(self.fates)}
        for kind in KINDS:
            document[kind] = {"rows": self.rows(kind), "tokens": self.tokens(kind)}
        document["truncated"]["cut"] = sum(fate.cut for fate in self.fates.values())
        for kind in ("masked", "dropped"):
            document[kind] = {"rows": document[kind]["rows"], "reasons": self.reasons(kind)}
        document["sources"] = {source: _packed(fates) for source, fates in self._by_source().items()}
        return document

    def _by_source(self) -> dict[str, dict[int, Fate]]:
        found: dict[str, dict[int, Fate]] = {}
        for (source, row), fate in self.fates.items():
            found.setdefault(source, {})[row] = fate
        return found

    def save(self, path: Path | str) -> None:
        """Write ledger.json as a whole."""
        write_atomically(path, json.dumps(self.to_json(), ensure_ascii=False))

    @classmethod
    def load(cls, path: Path | str) -> Ledger:
        """Read ledger.json back. Raises D015 where it is damaged."""
        ledger = cls()
        try:
            document = json.loads(Path(path).read_text("utf-8"))
            for source, packed in document["sources"].items():
                ledger.fates |= {Origin(source, row): fate for row, fate in _unpacked(packed)}
            ledger.total(document["total"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            fix = "copy the run folder again, or train again: the ledger is written at the start"
            raise HoneError("D015", f"the ledger is damaged ({type(error).__name__})", where=str(path), fix=fix) from None
        ledger.check()
        return ledger


def _packed(fates: Mapping[int, Fate]) -> dict[str, Any]:
    """Columns instead of rows: row numbers only where they are not 1, 2, 3 ...; cuts and reasons only where there are some."""
    numbers, values = list(fates), list(fates.values())
    reasons = list(dict.fromkeys(fate.reason for fate in values if fate.reason))
    packed: dict[str, Any] = {
        "fates": "".join(fate.kind[0] if fate.kind != "truncated" else "c" for fate in values),
        "tokens": [fate.tokens for fate in values],
    }
    if numbers != list(range(1, len(numbers) + 1)):
        packed["rows"] = numbers
    if cuts := {str(i): fate.cut for i, fate in enumerate(values) if fate.cut}:
        packed["cut"] = cuts
    if reasons:
        packed["reasons"] = reasons
        packed["why"] = {str(i): reasons.index(fate.reason) for i, fate in enumerate(values) if fate.reason}
    return packed


def _unpacked(packed: Mapping[str, Any]) -> Iterator[tuple[int, Fate]]:
    kinds = {kind[0] if kind != "truncated" else "c": kind for kind in KINDS}
    numbers: Iterable[int] = packed.get("rows") or range(1, len(packed["fates"]) + 1)
    cuts, why = packed.get("cut", {}), packed.get("why", {})
    for i, (row, letter, tokens) in enumerate(zip(numbers, packed["fates"], packed["tokens"], strict=True)):
        reason = packed["reasons"][why[str(i)]] if str(i) in why else ""
        yield row, Fate(kinds[letter], tokens, cuts.get(str(i), 0), reason)
