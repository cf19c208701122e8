"""Sequences as a forest of segments: what several of them begin with is stored, and computed, once, at any number of levels."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import takewhile

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
    """Lay sequences out. Those of one family (a group) share whatever they can; others where it saves enough.

    Every sequence keeps a last token of its own.
    """
    gardener = _Gardener(rows, families)
    if share:
        gardener.grow(list(range(len(rows))), 0, 0, -1)
    else:
        gardener.leaves(list(range(len(rows))), 0, -1)
    return gardener.made


def common(rows: Seq[Tokens]) -> int:
    """How many first tokens all rows have in common, leaving each at least one token of its own."""
    if len(rows) < 2:
        return 0
    alike = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))
    return min(alike, min(map(len, rows)) - 1)


class _Gardener:
    def __init__(self, rows: Seq[Tokens], families: Seq[int]) -> None:
        self.rows, self.families, self.made = rows, families, Forest()

    def grow(self, members: list[int], base: int, at: int, parent: int) -> None:
        """Lay out sequences that agree on their first `at` tokens, of which `base` are laid out already, in `parent`."""
        branches: dict[int, list[int]] = {}
        for one in members:
            branches.setdefault(self.rows[one][at], []).append(one)
        for branch in branches.values():
            ending = [one for one in branch if len(self.rows[one]) == at + 1]
            going = [one for one in branch if len(self.rows[one]) > at + 1]
            if len(going) > 1:
                self._share(going, base, parent)
                going = []
            self.leaves([*going, *ending], base, parent)

    def _share(self, branch: list[int], base: int, parent: int) -> None:
        """Lay out sequences that agree on one more token at least."""
        shared = common([self.rows[one] for one in branch])
        if self._pays(branch, shared - base):
            self.grow(branch, shared, shared, self._segment(branch, base, shared, parent))
        else:
            self.grow(branch, base, shared, parent)

    def _pays(self, branch: list[int], length: int) -> bool:
        others = len({self.families[one] for one in branch}) - 1
        return length >= MIN_SHARED and (others == 0 or length * others >= MIN_SAVED)

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
