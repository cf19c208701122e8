"""Rows that cannot be used: some are left out and counted, others stop the run, and the user hears of all of them at once."""

from __future__ import annotations

from collections import Counter

from hone.core.errors import HoneError, catalogue
from hone.core.types import Origin
from hone.data.checks import NOTHING_TO_LEARN
from hone.data.ledger import Ledger
from hone.data.lengths import Lost
from hone.data.notices import Notice


class Refusals:
    """Collects faults by row. With `skip_bad` every fault of a row is one that is left out."""

    def __init__(self, ledger: Ledger, *, skip_bad: bool = False) -> None:
        self.ledger, self.skip_bad = ledger, skip_bad
        self.left_out: dict[str, list[HoneError]] = {}
        self.stopping: list[HoneError] = []

    def add(self, origin: Origin, fault: HoneError, *, stops: bool = False) -> None:
        """Note a row's fault, and its fate if it is left out."""
        if stops or not (self.skip_bad or fault.code in NOTHING_TO_LEARN):
            self.stopping.append(fault)
            return
        self.ledger.dropped(origin, fault.code, title(fault.code))
        self.left_out.setdefault(fault.code, []).append(fault)

    def masked(self, origin: Origin, fault: HoneError) -> None:
        """Note a row of which its author wants nothing learned."""
        self.ledger.masked(origin, title(fault.code))
        self.left_out.setdefault(fault.code, []).append(fault)

    def check(self) -> None:
        """Raise the first fault that stops, with the numbers of those behind it."""
        if not self.stopping:
            return
        first, others = self.stopping[0], Counter(fault.code for fault in self.stopping[1:])
        more = ", ".join(f"{count:,} x {code}" for code, count in others.most_common())
        what = f"{first.what}\n  and {len(self.stopping) - 1:,} more rows cannot be used ({more})" if others else first.what
        raise HoneError(first.code, what, where=first.where, fix=first.fix)

    def nothing_left(self, where: str) -> HoneError:
        """The error for data of which no row can be learned from: the commonest fault, as it was in its first row."""
        if not self.left_out:
            return HoneError("D029", "no row is left to learn from", where=where, fix="keep fewer rows aside with data.held_out")
        faults = max(self.left_out.values(), key=len)
        what = f"no row is left to learn from; {len(faults):,} times: {faults[0].what}"
        return HoneError(faults[0].code, what, where=faults[0].where, fix=_longer(faults) or faults[0].fix)

    def notices(self) -> list[Notice]:
        """One for each code of rows that were left out."""
        return [
            Notice(code, f"left out: {title(code)}" + (f"; {fix}" if (fix := _longer(faults)) else ""), len(faults), faults[0].where)
            for code, faults in self.left_out.items()
        ]


def _longer(faults: list[HoneError]) -> str:
    """The length that would save all rows whose answers were cut off."""
    needed = max((fault.needed or 0 for fault in faults if isinstance(fault, Lost)), default=0)
    return f"data.max_length={needed} would keep the beginning of each answer" if needed else ""


def title(code: str) -> str:
    """What a code means, in the words of `hone explain`."""
    return catalogue()[code].title
