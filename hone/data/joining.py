"""Several micro-batches laid end to end as one: the same segments and reads, in order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hone.core.types import Batch, Segment


def join(batches: Sequence[Batch]) -> Batch:
    """One batch that says what the batches say; all must know the same facts. One alone is given back."""
    if len(batches) == 1:
        return batches[0]
    tokens = segments = rows = 0
    parts: list[Segment] = []
    read, row, last, leaf = [], [], [], []
    for batch in batches:
        parts += [Segment(s.start + tokens, s.length, s.parent + segments if s.parent >= 0 else -1) for s in batch.segments]
        read.append(batch.read_N + tokens)
        last.append(batch.last_S + tokens)
        row.append(batch.row_N + rows)
        leaf += [each + segments for each in batch.leaf_S]
        tokens, segments, rows = tokens + len(batch.tokens_T), segments + len(batch.segments), rows + batch.sequences
    return Batch(
        tokens_T=torch.cat([batch.tokens_T for batch in batches]),
        positions_T=torch.cat([batch.positions_T for batch in batches]),
        segments=tuple(parts),
        read_N=torch.cat(read),
        target_N=torch.cat([batch.target_N for batch in batches]),
        weight_N=torch.cat([batch.weight_N for batch in batches]),
        row_N=torch.cat(row),
        last_S=torch.cat(last),
        leaf_S=tuple(leaf),
        groups=sum(batch.groups for batch in batches),
        facts={name: torch.cat([batch.facts[name] for batch in batches]) for name in batches[0].facts},
        origins=tuple(origin for batch in batches for origin in batch.origins),
        weight_sum=sum(batch.weight_sum for batch in batches),
        sizes=tuple(size for batch in batches for size in batch.sizes),
        aside=batches[0].aside,
    )
