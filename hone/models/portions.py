"""Part of what a model said about a batch: the signals of some of its sequences, as if they had been asked alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

from torch import Tensor

from hone.core.types import Batch, Signals
from hone.data.splitting import part

PER_READ = ("logp_N", "ref_logp_N", "entropy_N", "mean_logp_N", "divergence_N", "value_N", "step_score_N")
"""Signals with an entry for each read; the score has one for each sequence."""


def by_group(signals: Signals, batch: Batch) -> Iterator[Signals]:
    """The signals of each group in turn. `batch` is theirs, on the CPU. Statistics of a step are of all groups, so they are left out."""
    for first, stop in pairwise(accumulate(batch.sizes, initial=0)):
        mine_N = ((batch.row_N >= first) & (batch.row_N < stop)).nonzero()[:, 0]
        device = signals.batch.row_N.device
        found = Signals(part(batch, first, stop).to(device))
        fill(found, signals, mine_N.to(device), slice(first, stop))
        yield found


def fill(into: Signals, whole: Signals, reads: Tensor | slice, sequences: slice) -> None:
    """Copy what was asked for, of these reads and sequences; gradients flow on."""
    for name in PER_READ:
        value: Tensor | None = getattr(whole, name)
        if value is not None:
            setattr(into, name, value[reads])
    if whole.score_S is not None:
        into.score_S = whole.score_S[sequences]
