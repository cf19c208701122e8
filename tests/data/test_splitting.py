"""A batch and its two halves say the same: every token, read, weight and fact, with shared prefixes and without."""

from __future__ import annotations

import random

import pytest
import torch

from hone.core.types import Batch, Sequence
from hone.data.batching import pack
from hone.data.splitting import split
from tests import nets


def told(batch: Batch) -> list[tuple[list[int], list[tuple[int, int, float]]]]:
    """For each sequence its tokens along its path, and its reads as (position, target, weight)."""
    found = []
    for s, leaf in enumerate(batch.leaf_S):
        path: list[int] = []
        while leaf >= 0:
            segment = batch.segments[leaf]
            path = [*range(segment.start, segment.start + segment.length), *path]
            leaf = segment.parent
        assert batch.positions_T[path].tolist() == list(range(len(path)))
        assert int(batch.last_S[s]) == path[-1]
        mine = (batch.row_N == s).nonzero()[:, 0].tolist()
        reads = [(path.index(int(batch.read_N[n])), int(batch.target_N[n]), float(batch.weight_N[n])) for n in mine]
        found.append((batch.tokens_T[path].tolist(), reads))
    return found


def with_facts(groups: list[tuple[Sequence, ...]]) -> list[tuple[Sequence, ...]]:
    for i, group in enumerate(groups):
        for j, sequence in enumerate(group):
            sequence.facts = {"label": float(10 * i + j), "old_logp": [float(t) for t in sequence.tokens]}
    return groups


@pytest.mark.parametrize("make", [nets.singles, nets.pairs])
def test_two_halves_are_the_whole(make: object) -> None:
    batch = pack(with_facts(make(7)))  # type: ignore[operator]
    halves = split(batch, inside_groups=False)
    assert halves is not None
    one, two = halves
    assert told(one) + told(two) == told(batch)
    assert one.groups + two.groups == batch.groups and one.sizes + two.sizes == batch.sizes
    assert one.weight_sum + two.weight_sum == pytest.approx(batch.weight_sum, rel=1e-6)
    assert one.origins + two.origins == batch.origins
    for name, fact in batch.facts.items():
        assert torch.equal(torch.cat([one.facts[name], two.facts[name]]), fact), name
    longer = max(len(one.tokens_T), len(two.tokens_T))
    assert longer < 0.8 * len(batch.tokens_T)


def test_one_group_is_parted_only_where_that_is_allowed() -> None:
    rng = random.Random(3)
    prompt = nets.sequence(rng, 20)
    answers = [nets.sequence(rng, 10) for _ in range(4)]
    group = tuple(Sequence(prompt.tokens + a.tokens, [0.0] * 20 + a.weights, origin=a.origin) for a in answers)
    batch = pack([group])
    assert split(batch, inside_groups=False) is None
    halves = split(batch, inside_groups=True)
    assert halves is not None
    assert told(halves[0]) + told(halves[1]) == told(batch)
    assert [half.sizes for half in halves] == [(2,), (2,)]
    assert len(halves[0].segments) == 3, "the prompt is computed once in each half"


def test_a_single_sequence_cannot_be_split() -> None:
    assert split(pack(nets.singles(1)), inside_groups=True) is None
