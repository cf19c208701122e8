"""Groups to micro-batches: sequences laid out as a forest of segments, filled to a budget of tokens.

Shape legend: T tokens of a batch, N reads, S sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace

import torch

from hone.core.types import Batch, Group, Sequence
from hone.data.forest import plant
from hone.data.sharing import fill, size


def micro_batches(groups: Iterable[Group], budget: int, *, share: bool = True, aside: bool = False) -> list[Batch]:
    """Fill batches with whole groups up to a budget of tokens, longest first so that neighbours have like lengths.

    A group larger than the budget gets a batch of its own: groups are never split, and the gradient of the step
    does not depend on the budget. `aside` marks batches that are only asked for the statistics of a step.
    """
    groups = list(groups)
    sizes = [size(group, share=share) for group in groups]
    return [replace(pack([groups[i] for i in chosen], share=share), aside=aside) for chosen in fill(sizes, budget)]


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
    """Lay whole groups out in one batch, in order. Raises nothing; an empty list gives a batch without reads."""
    sequences = [sequence for group in groups for sequence in group]
    families = [i for i, group in enumerate(groups) for _ in group]
    forest = plant([sequence.tokens for sequence in sequences], families, share=share)
    learned = [[j for j, weight in enumerate(sequence.weights) if j and weight] for sequence in sequences]
    every = [(i, j) for i, picked in enumerate(learned) for j in picked]
    weights = [sequences[i].weights[j] for i, j in every]
    return Batch(
        tokens_T=torch.tensor(forest.tokens, dtype=torch.long),
        positions_T=torch.tensor(forest.positions, dtype=torch.long),
        segments=tuple(forest.segments),
        read_N=torch.tensor([forest.index[i][j - 1] for i, j in every], dtype=torch.long),
        target_N=torch.tensor([sequences[i].tokens[j] for i, j in every], dtype=torch.long),
        weight_N=torch.tensor(weights, dtype=torch.float32),
        row_N=torch.tensor([i for i, _ in every], dtype=torch.long),
        last_S=torch.tensor([forest.index[i][-1] for i in range(len(sequences))], dtype=torch.long),
        leaf_S=tuple(forest.leaves[i] for i in range(len(sequences))),
        groups=len(groups),
        sizes=tuple(map(len, groups)),
        facts=_facts(sequences, learned),
        origins=tuple(sequence.origin for sequence in sequences),
        weight_sum=float(sum(weights)),
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
