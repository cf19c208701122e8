"""What the prepared data of a run looks like from afar, for the doctor: a few shares that its curves cannot tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from hone.core.types import Group
from hone.core.types import Sequence as Tokens
from hone.data.prepare import Prepared

LOOKED_AT = 20_000
"""Groups of either side that are looked at, the first ones."""


def data_facts(prepared: Prepared, stop_ids: Iterable[int]) -> dict[str, Any]:
    """Rows, learned tokens of a pass, and shares (0 to 1) of what repeats, ends, and stands on both sides.

    `ends`: sequences whose last learned token is one that stops an answer. `repeated`: groups that another one equals.
    `held_out_seen`: held-out groups that equal one to train on, `held_out_prompts_seen`: those whose prompt does.
    """
    train, aside = _first(prepared.groups), _first(prepared.held_out)
    wholes, prompts = {_whole(group) for group in train}, {_prompt(group) for group in train}
    asked = [group for group in aside if _prompt(group) is not None]
    stops = frozenset(stop_ids)
    learned = [sequence for group in train for sequence in group if sequence.learned]
    return {
        "rows": len(prepared.groups),
        "held_out": len(prepared.held_out),
        "tokens": sum(len(sequence.tokens) for group in train for sequence in group),
        "learned_tokens": sum(sequence.learned for sequence in learned),
        "ends": _share(_ends(sequence, stops) for sequence in learned),
        "repeated": 1 - len(wholes) / max(1, len(train)),
        "held_out_seen": _share(_whole(group) in wholes for group in aside),
        "held_out_prompts_seen": _share(_prompt(group) in prompts for group in asked),
    }


def _first(groups: Sequence[Group]) -> list[Group]:
    iterator: Iterator[Group] = iter(groups)
    return list(islice(iterator, LOOKED_AT))


def _whole(group: Group) -> int:
    return hash(tuple(tuple(sequence.tokens) for sequence in group))


def _prompt(group: Group) -> int | None:
    """Of what stands before the first learned token; None where all of it is learned."""
    sequence = group[0]
    first = next((i for i, weight in enumerate(sequence.weights) if weight), len(sequence.tokens))
    return hash(tuple(sequence.tokens[:first])) if first > 1 else None


def _ends(sequence: Tokens, stops: frozenset[int]) -> bool:
    last = max(i for i, weight in enumerate(sequence.weights) if weight)
    return sequence.tokens[last] in stops


def _share(found: Iterable[bool]) -> float | None:
    listed = list(found)
    return sum(listed) / len(listed) if listed else None
