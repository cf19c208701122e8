"""Groups to micro-batches: sequences laid out as a forest of segments, filled to a budget of tokens.

Shape legend: T tokens of a batch, N reads, S sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from itertools import takewhile

import torch

from hone.core.types import Batch, Group, Segment, Sequence

MIN_SHARED = 8
"""Shorter common prefixes are not worth an edge of their own in the attention."""


def shared_prefix(group: Group) -> int:
    """How many first tokens all sequences of a group have in common, leaving each at least one token of its own."""
    if len(group) < 2:
        return 0
    columns = zip(*(sequence.tokens for sequence in group), strict=False)
    common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    common = min(common, min(len(sequence.tokens) for sequence in group) - 1)
    return common if common >= MIN_SHARED else 0


def size(group: Group, *, share: bool = True) -> int:
    """Tokens that must be computed for a group."""
    prefix = shared_prefix(group) if share else 0
    return sum(len(sequence.tokens) - prefix for sequence in group) + prefix


def micro_batches(groups: Iterable[Group], budget: int, *, share: bool = True, aside: bool = False) -> list[Batch]:
    """Fill batches with whole groups up to a budget of tokens, longest first so that neighbours have like lengths.

    A group larger than the budget gets a batch of its own: groups are never split, and the gradient of the step
    does not depend on the budget. `aside` marks batches that are only asked for the statistics of a step.
    """
    sized = sorted(((size(group, share=share), i, group) for i, group in enumerate(groups)), key=lambda item: (-item[0], item[1]))
    batches: list[Batch] = []
    held: list[Group] = []
    used = 0
    for tokens, _, group in sized:
        if held and used + tokens > budget:
            batches.append(replace(pack(held, share=share), aside=aside))
            held, used = [], 0
        held.append(group)
        used += tokens
    if held:
        batches.append(replace(pack(held, share=share), aside=aside))
    return batches


def consecutive(groups: Iterable[Group], budget: int) -> Iterator[Batch]:
    """Batches of the groups in their own order, each filled to a budget of tokens: for passes that only ask."""
    held: list[Group] = []
    used = 0
    for group in groups:
        tokens = size(group)
        if held and used + tokens > budget:
            yield pack(held)
            held, used = [], 0
        held.append(group)
        used += tokens
    if held:
        yield pack(held)


def pack(groups: Seq[Group], *, share: bool = True) -> Batch:
    """Lay whole groups out in one batch. Raises nothing; an empty list gives a batch without reads."""
    layout = _Layout()
    for group in groups:
        prefix = shared_prefix(group) if share else 0
        root = layout.segment(group[0].tokens[:prefix], 0, -1) if prefix else -1
        for sequence in group:
            layout.sequence(sequence, prefix, root)
    return layout.batch(groups)


class _Layout:
    """The columns of a batch while it is being written."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self.reads: list[int] = []
        self.targets: list[int] = []
        self.weights: list[float] = []
        self.rows: list[int] = []
        self.last: list[int] = []
        self.leaves: list[int] = []
        self.picked: list[list[int]] = []

    def segment(self, tokens: list[int], position: int, parent: int) -> int:
        self.segments.append(Segment(len(self.tokens), len(tokens), parent))
        self.tokens += tokens
        self.positions += range(position, position + len(tokens))
        return len(self.segments) - 1

    def sequence(self, sequence: Sequence, prefix: int, root: int) -> None:
        leaf = self.segment(sequence.tokens[prefix:], prefix, root)
        root_start, leaf_start = self.segments[root].start, self.segments[leaf].start - prefix
        learned = [j for j, weight in enumerate(sequence.weights) if j and weight]
        self.reads += [j - 1 + (root_start if j <= prefix else leaf_start) for j in learned]
        self.targets += [sequence.tokens[j] for j in learned]
        self.weights += [sequence.weights[j] for j in learned]
        self.rows += [len(self.leaves)] * len(learned)
        self.last.append(len(self.tokens) - 1)
        self.leaves.append(leaf)
        self.picked.append(learned)

    def batch(self, groups: Seq[Group]) -> Batch:
        sequences = [sequence for group in groups for sequence in group]
        return Batch(
            tokens_T=torch.tensor(self.tokens, dtype=torch.long),
            positions_T=torch.tensor(self.positions, dtype=torch.long),
            segments=tuple(self.segments),
            read_N=torch.tensor(self.reads, dtype=torch.long),
            target_N=torch.tensor(self.targets, dtype=torch.long),
            weight_N=torch.tensor(self.weights, dtype=torch.float32),
            row_N=torch.tensor(self.rows, dtype=torch.long),
            last_S=torch.tensor(self.last, dtype=torch.long),
            leaf_S=tuple(self.leaves),
            groups=len(groups),
            facts=_facts(sequences, self.picked),
            origins=tuple(sequence.origin for sequence in sequences),
            weight_sum=float(sum(self.weights)),
        )


def _facts(sequences: list[Sequence], picked: list[list[int]]) -> dict[str, torch.Tensor]:
    """Lists and tensors are facts of each token and are read where the token is a target; a number is a fact of the sequence."""
    facts: dict[str, torch.Tensor] = {}
    for key in sequences[0].facts if sequences else ():
        pieces = [_fact(sequence.facts[key], learned) for sequence, learned in zip(sequences, picked, strict=True)]
        facts[key] = torch.cat(pieces)
    return facts


def _fact(value: float | list[float] | torch.Tensor, learned: list[int]) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value[learned]
    return torch.tensor([value[j] for j in learned] if isinstance(value, list) else [value], dtype=torch.float32)
