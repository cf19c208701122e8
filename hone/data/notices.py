"""What a person should know about data that is used all the same: counted by kind, with the first place of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from hone.core.types import Origin

TINY, FEW = 10, 100
LOPSIDED = 10
"""Times that one label may be commoner than another before it is worth a word."""


class Notice(NamedTuple):
    """One kind of thing that was found."""

    code: str
    text: str
    rows: int
    first: str

    def __str__(self) -> str:
        place = f" ({self.rows:,} row{'s' if self.rows > 1 else ''}, first {self.first})" if self.first else ""
        return f"{self.code}: {self.text}{place}"


class Notices:
    """Counts notices by code and text."""

    def __init__(self) -> None:
        self._rows: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, code: str, text: str, origin: Origin | None = None) -> None:
        """One more row of this kind, or something that concerns no single row."""
        self._rows[code, text] += 1
        self._first.setdefault((code, text), str(origin) if origin else "")

    def all(self) -> list[Notice]:
        """Each kind once, the most rows first."""
        return [Notice(*kind, rows, self._first[kind]) for kind, rows in self._rows.most_common()]


def advice(notices: Notices, *, rows: int, labels: Mapping[str, int]) -> None:
    """Remarks on how much there is (D032), and on labels that are hardly there (P003)."""
    if rows < TINY:
        notices.add(
            "D032",
            f"{rows} row{'s' * (rows != 1)} to train on: enough to try things out, not to learn from; 100 are a start, 1,000 are good",
        )
    elif rows < FEW:
        notices.add("D032", f"{rows} rows to train on are few: start from a model that follows instructions, and watch the held-out loss")
    if text := lopsided(labels):
        notices.add("P003", text)


def lopsided(labels: Mapping[str, int]) -> str:
    """What is wrong with the distribution of labels; empty if nothing is."""
    if not labels or sum(labels.values()) < TINY:
        return ""
    if len(labels) == 1:
        return f"all rows have the same label, '{next(iter(labels))}': there is nothing to tell apart"
    most, least = max(labels, key=lambda name: labels[name]), min(labels, key=lambda name: labels[name])
    if labels[most] < LOPSIDED * labels[least]:
        return ""
    judged = labels.keys() == {"wanted", "unwanted"}
    weigh = f"give objective.{least} about {labels[most] // labels[least]} times the weight"
    rest = weigh if judged else "a model that always says the first looks good; use macro-F1"
    return f"'{most}' has {labels[most]:,} rows and '{least}' {labels[least]:,}: {rest}"
