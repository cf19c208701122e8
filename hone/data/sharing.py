"""How groups share prefixes and fill micro-batches: the arithmetic of batching, without tensors."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from hone.core.types import Group
from hone.data.forest import MIN_SHARED, common


def shared_prefix(group: Group) -> int:
    """How many first tokens all sequences of a group have in common and are worth sharing."""
    found = common([sequence.tokens for sequence in group])
    return found if found >= MIN_SHARED else 0


def size(group: Group, *, share: bool = True) -> int:
    """Tokens that must be computed for a group, or a few less where only some of its sequences have more in common."""
    prefix = shared_prefix(group) if share else 0
    return sum(len(sequence.tokens) - prefix for sequence in group) + prefix


def fill(sizes: Seq[int], budget: int) -> list[list[int]]:
    """Which groups, by their sizes in tokens, share a micro-batch: longest first, up to the budget, none ever split."""
    batches: list[list[int]] = []
    used = 0
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if not batches or used + sizes[i] > budget:
            batches.append([])
            used = 0
        batches[-1].append(i)
        used += sizes[i]
    return batches


def heaviest(groups: Seq[Group], budget: int) -> list[int]:
    """Which groups make the largest micro-batch."""
    sizes = [size(group) for group in groups]
    return max(fill(sizes, budget), key=lambda chosen: sum(sizes[i] for i in chosen), default=[])
