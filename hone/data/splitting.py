"""One micro-batch into two that together say the same: between groups where there are several, else between sequences.

Shape legend: T tokens of a batch, N reads, S sequences.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from hone.core.types import Batch, Segment


def split(batch: Batch, *, inside_groups: bool) -> tuple[Batch, Batch] | None:
    """The batch cut where its tokens are about halved; None where it cannot be cut.

    Groups stay whole unless there is only one and `inside_groups` allows to part its sequences, for objectives that look at
    each of them alone. A shared prefix is then computed in both halves.
    """
    starts = list(accumulate(_per_group(batch), initial=0))
    cuts = starts[1:-1] or (list(range(1, batch.sequences)) if inside_groups else [])
    if not cuts:
        return None
    length_S = [batch.segments[leaf].length for leaf in batch.leaf_S]
    before = list(accumulate(length_S, initial=0))
    cut = min(cuts, key=lambda s: abs(2 * before[s] - before[-1]))
    return part(batch, 0, cut), part(batch, cut, batch.sequences)


def part(batch: Batch, first: int, stop: int) -> Batch:
    """The sequences [first, stop) of a batch as a batch of their own."""
    leaves = batch.leaf_S[first:stop]
    kept = sorted({segment for leaf in leaves for segment in _path(batch, leaf)})
    index = {old: new for new, old in enumerate(kept)}
    segments: list[Segment] = []
    for old in kept:
        start = segments[-1].start + segments[-1].length if segments else 0
        segments.append(Segment(start, batch.segments[old].length, index.get(batch.segments[old].parent, -1)))
    from_T = torch.cat([torch.arange(s.start, s.start + s.length) for s in (batch.segments[old] for old in kept)])
    to_T = torch.full((len(batch.tokens_T),), -1, dtype=torch.long)
    to_T[from_T] = torch.arange(len(from_T))
    mine_N = ((batch.row_N >= first) & (batch.row_N < stop)).nonzero()[:, 0]
    weight_N = batch.weight_N[mine_N]
    return Batch(
        tokens_T=batch.tokens_T[from_T],
        positions_T=batch.positions_T[from_T],
        segments=tuple(segments),
        read_N=to_T[batch.read_N[mine_N]],
        target_N=batch.target_N[mine_N],
        weight_N=weight_N,
        row_N=batch.row_N[mine_N] - first,
        last_S=to_T[batch.last_S[first:stop]],
        leaf_S=tuple(index[leaf] for leaf in leaves),
        groups=sum(first <= start < stop for start in accumulate(_per_group(batch)[:-1], initial=0)),
        facts={name: _fact(fact, batch, mine_N, slice(first, stop)) for name, fact in batch.facts.items()},
        origins=batch.origins[first:stop],
        weight_sum=float(weight_N.double().sum()),
        aside=batch.aside,
        sizes=_sizes(_per_group(batch), first, stop),
    )


def _per_group(batch: Batch) -> tuple[int, ...]:
    """Sequences of each group; a batch that was put together by hand has equally large groups."""
    return batch.sizes or (batch.sequences // max(1, batch.groups),) * batch.groups


def _path(batch: Batch, leaf: int) -> list[int]:
    path = []
    while leaf >= 0:
        path.append(leaf)
        leaf = batch.segments[leaf].parent
    return path


def _sizes(sizes: tuple[int, ...], first: int, stop: int) -> tuple[int, ...]:
    """Sequences of each group that lie in [first, stop)."""
    starts = accumulate(sizes, initial=0)
    inside = [min(start + size, stop) - max(start, first) for start, size in zip(starts, sizes, strict=False)]
    return tuple(count for count in inside if count > 0)


def _fact(fact: Tensor, batch: Batch, mine_N: Tensor, rows: slice) -> Tensor:
    """Facts have an entry for each read or for each sequence; where these are equally many, both mean the same entries."""
    return fact[mine_N] if len(fact) == len(batch.read_N) and len(fact) != batch.sequences else fact[rows]
