"""What the policy says about sequences that are already written: values, log-probabilities, those of the reference; no gradient.

Shape legend: N reads, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

import torch

from hone.core.types import Batch, Sequence
from hone.data.batching import pack
from hone.data.sharing import size
from hone.models.policy import Policy, evaluating
from hone.rollout.on_policy import Read


def reader(policy: Policy, *, budget: int) -> Read:
    """A function that reads sequences in batches of about `budget` tokens; signals are named as in an objective's needs."""

    def read(sequences: Seq[Sequence], needs: str) -> list[dict[str, list[float]]]:
        found: list[dict[str, list[float]]] = []
        with evaluating(policy.model):
            for portion in _portions(sequences, budget):
                found += _said(policy, pack([portion]), needs)
        return found

    return read


@torch.no_grad()
def _said(policy: Policy, batch: Batch, needs: str) -> list[dict[str, list[float]]]:
    counts = torch.bincount(batch.row_N, minlength=batch.sequences).tolist()
    if not len(batch.read_N):
        return [{name: [] for name in needs.split()} for _ in counts]
    signals = policy.signals(batch.to(policy.device), needs)
    columns = {name: getattr(signals, f"{name}_N").double().split(counts) for name in needs.split()}
    return [{name: column[i].tolist() for name, column in columns.items()} for i in range(len(counts))]


def _portions(sequences: Seq[Sequence], budget: int) -> list[tuple[Sequence, ...]]:
    """Neighbours together, so that answers to one prompt share it."""
    portions: list[tuple[Sequence, ...]] = []
    held: tuple[Sequence, ...] = ()
    for sequence in sequences:
        if held and (held[0].tokens[:8] != sequence.tokens[:8] or size((*held, sequence)) > budget):
            portions.append(held)
            held = ()
        held = (*held, sequence)
    return [*portions, held] if held else portions
