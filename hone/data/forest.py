"""Sequences as a forest of segments: what several of them begin with is stored, and computed, once, at any number of levels."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from hone.core.types import Segment

MIN_SHARED = 8
"""Shorter common beginnings are not worth an edge of their own in the attention."""
MIN_SAVED = 64
"""Tokens that sharing between groups (of a system prompt, say) must save; inside a group it always pays."""

Tokens = Seq[int]


@dataclass(slots=True)
class Forest:
    """Segments in the order of their tokens, and where each sequence lies in them."""

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    leaves: dict[int, int] = field(default_factory=dict)
    """Sequence -> the segment in which it ends."""
    index: dict[int, list[int]] = field(default_factory=dict)
    """Sequence -> where each of its tokens lies."""


def plant(rows: Seq[Tokens], families: Seq[int], *, share: bool = True) -> Forest:
    """Lay sequences out. Those of one family (a group) share whatever they can; families share with each other where it saves enough.

    Every sequence keeps a last token of its own.
    """
    gardener = _Gardener(rows)
    if share:
        members: dict[int, list[int]] = {}
        for one, family in enumerate(families):
            members.setdefault(family, []).append(one)
        gardener.across([_Family(ones, gardener.common(ones)) for ones in members.values()], 0, 0, -1)
    else:
        gardener.leaves(list(range(len(rows))), 0, -1)
    return gardener.made


class _Family(NamedTuple):
    """The sequences of a group, and how many first tokens they have in common."""

    members: list[int]
    shared: int


def common(rows: Seq[Tokens]) -> int:
    """How many first tokens all rows have in common, leaving each at least one token of its own."""
    if len(rows) < 2:
        return 0
    alike = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
    return min(alike, min(map(len, rows)) - 1)


class _Gardener:
    def __init__(self, rows: Seq[Tokens]) -> None:
        self.rows, self.made = rows, Forest()

    def common(self, members: list[int]) -> int:
        """First tokens that some sequences have in common; a single one could share all but its last."""
        return common([self.rows[one] for one in members]) if len(members) > 1 else len(self.rows[members[0]]) - 1

    def across(self, families: list[_Family], base: int, at: int, parent: int) -> None:
        """Lay out families that agree on their first `at` tokens, of which `base` are laid out already, in `parent`.

        They share no further than each of them does inside, so that nothing is lost there.
        """
        branches: dict[int, list[_Family]] = {}
        for family in families:
            if family.shared > at:
                branches.setdefault(self.rows[family.members[0]][at], []).append(family)
        for branch in branches.values():
            if len(branch) == 1:
                self.within(branch[0], base, parent)
                continue
            shared = min(self.common([family.members[0] for family in branch]), *(family.shared for family in branch))
            if shared - base >= MIN_SHARED and (shared - base) * (len(branch) - 1) >= MIN_SAVED:
                ones = [one for family in branch for one in family.members]
                self.across(branch, shared, shared, self._segment(ones, base, shared, parent))
            else:
                self.across(branch, base, shared, parent)
        for family in families:
            if family.shared <= at:
                self.within(family, base, parent)

    def within(self, family: _Family, base: int, parent: int) -> None:
        """Lay out a family, of whose common tokens `base` are laid out already."""
        if len(family.members) > 1 and family.shared >= MIN_SHARED and family.shared > base:
            parent = self._segment(family.members, base, family.shared, parent)
            base = family.shared
        self.grow(family.members, base, family.shared, parent)

    def grow(self, members: list[int], base: int, at: int, parent: int) -> None:
        """Lay out sequences of one family that agree on their first `at` tokens, at as many levels as are worth it."""
        branches: dict[int, list[int]] = {}
        for one in members:
            branches.setdefault(self.rows[one][at], []).append(one)
        for branch in branches.values():
            ending = [one for one in branch if len(self.rows[one]) == at + 1]
            going = [one for one in branch if len(self.rows[one]) > at + 1]
            if len(going) > 1:
                shared = self.common(going)
                worth = shared - base >= MIN_SHARED
                self.grow(going, shared if worth else base, shared, self._segment(going, base, shared, parent) if worth else parent)
                going = []
            self.leaves([*going, *ending], base, parent)

    def leaves(self, members: list[int], base: int, parent: int) -> None:
        """Give each sequence the rest of its tokens to itself."""
        for one in members:
            self.made.leaves[one] = self._segment([one], base, len(self.rows[one]), parent)

    def _segment(self, members: list[int], start: int, stop: int, parent: int) -> int:
        made, length = self.made, stop - start
        made.segments.append(Segment(len(made.tokens), length, parent))
        for one in members:
            made.index.setdefault(one, []).extend(range(len(made.tokens), len(made.tokens) + length))
        made.tokens += self.rows[members[0]][start:stop]
        made.positions += range(start, stop)
        return len(made.segments) - 1
