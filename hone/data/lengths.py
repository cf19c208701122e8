"""What becomes of sequences that are longer than the limit."""

from __future__ import annotations

from typing import NamedTuple

from hone.core.errors import HoneError
from hone.core.types import Group, Sequence
from hone.data.settings import Overflow


class Fitted(NamedTuple):
    """A group within the limit, or the pieces of one, and how many tokens were cut off."""

    pieces: list[Group]
    cut: int = 0


class Lost(HoneError):
    """D028: all targets were cut off. `needed` is the length at which each sequence keeps its first one, if the model takes that many."""

    def __init__(self, group: Group, limit: int, most: int | None) -> None:
        needed = max(_first_target(sequence) for sequence in group) + 1
        self.needed = needed if most is None or needed <= most else None
        what = f"the prompt alone fills data.max_length={limit:,}: nothing is left to learn"
        fix = f"raise data.max_length to at least {needed:,}, or shorten the prompt" if self.needed else _too_much(most)
        super().__init__("D028", what, where=str(group[0].origin), fix=fix)


def _too_much(most: int | None) -> str:
    return f"shorten the prompt, or choose a model that takes more than {most:,} tokens"


def fit(group: Group, *, limit: int, overflow: Overflow, most: int | None = None) -> Fitted:
    """Bring a group within `limit` tokens a sequence. `most` is what the model takes: no more than that is advised.

    `truncate` keeps the beginning; `split` makes pieces in which every target is learned once. Raises D028 where truncation
    cuts off all targets of a sequence, and D033 for `drop` and `error`.
    """
    longest = max(len(sequence.tokens) for sequence in group)
    if longest <= limit:
        return Fitted([group])
    origin = group[0].origin
    if overflow in ("drop", "error"):
        higher = f"raise data.max_length to {longest}, or " if most is None or longest <= most else ""
        fix = f"{higher}set data.overflow to truncate or split"
        raise HoneError("D033", f"the row has {longest:,} tokens and data.max_length is {limit:,}", where=str(origin), fix=fix)
    if overflow == "split":
        assert len(group) == 1, "answers that are compared cannot be split"
        pieces = [(piece,) for piece in _pieces(group[0], limit) if piece.learned]
        return Fitted(list[Group](pieces))
    kept = tuple(_beginning(sequence, limit) for sequence in group)
    if not all(sequence.learned for sequence in kept):
        raise Lost(group, limit, most)
    return Fitted([kept], sum(len(sequence.tokens) for sequence in group) - sum(len(sequence.tokens) for sequence in kept))


def _beginning(sequence: Sequence, limit: int) -> Sequence:
    return Sequence(sequence.tokens[:limit], sequence.weights[:limit], sequence.facts, sequence.origin)


def _pieces(sequence: Sequence, limit: int) -> list[Sequence]:
    """Neighbours share one token, the first of the later piece: only so has each target something before it."""
    made = []
    for start in range(0, len(sequence.tokens) - 1, limit - 1):
        weights = [0.0, *sequence.weights[start + 1 : start + limit]] if start else sequence.weights[:limit]
        made.append(Sequence(sequence.tokens[start : start + limit], weights, dict(sequence.facts), sequence.origin))
    return made


def _first_target(sequence: Sequence) -> int:
    return next(i for i, weight in enumerate(sequence.weights) if weight != 0 and i)
