"""Whatever the layout, each learned token is read once, from the token before it, with its own weight and fact."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hone.core.types import Batch, Group, Origin, Sequence
from hone.data.batching import micro_batches, pack
from hone.data.forest import MIN_SHARED
from hone.data.sharing import shared_prefix, size

Read = tuple[tuple[int, ...], int, float, float]
"""Context, target, weight and fact of a learned token."""


@st.composite
def sequences(draw: st.DrawFn, prompt: list[int]) -> Sequence:
    tokens = prompt + draw(st.lists(st.integers(3, 5), min_size=1, max_size=12))
    weights = [draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in tokens]
    return Sequence(
        tokens, weights, {"score": draw(st.integers(0, 9)) + 0.0, "old": [float(i) for i in range(len(tokens))]}, Origin("test", 1)
    )


@st.composite
def group(draw: st.DrawFn) -> Group:
    prompt = draw(st.lists(st.integers(3, 5), max_size=14))
    return tuple(draw(st.lists(sequences(prompt), min_size=1, max_size=3)))


many = st.lists(group(), max_size=5)


def wanted(sequence: Sequence) -> list[Read]:
    old = sequence.facts["old"]
    assert isinstance(old, list)
    return [(tuple(sequence.tokens[:j]), sequence.tokens[j], w, old[j]) for j, w in enumerate(sequence.weights) if j and w]


def context(batch: Batch, index: int) -> tuple[int, ...]:
    """What the token at this index can see, itself included, from the root of its segment's tree."""
    at = next(s for s in batch.segments if s.start <= index < s.start + s.length)
    seen = batch.tokens_T[at.start : index + 1].tolist()
    while at.parent >= 0:
        at = batch.segments[at.parent]
        seen = batch.tokens_T[at.start : at.start + at.length].tolist() + seen
    return tuple(seen)


def found(batch: Batch) -> list[list[Read]]:
    out: list[list[Read]] = [[] for _ in range(batch.sequences)]
    columns = (batch.row_N, batch.read_N, batch.target_N, batch.weight_N, batch.facts["old"])
    for row, read, target, weight, old in zip(*(column.tolist() for column in columns), strict=True):
        out[row].append((context(batch, read), target, weight, old))
    return out


@given(many, st.booleans())
def test_every_learned_token_is_read_from_its_own_context(groups: list[Group], share: bool) -> None:
    if not groups:
        return
    batch = pack(groups, share=share)
    flat = [sequence for group in groups for sequence in group]
    assert found(batch) == [wanted(sequence) for sequence in flat]
    assert [context(batch, last) for last in batch.last_S.tolist()] == [tuple(sequence.tokens) for sequence in flat]
    assert batch.facts["score"].tolist() == [sequence.facts["score"] for sequence in flat]
    assert batch.origins == tuple(sequence.origin for sequence in flat)


@given(many, st.booleans())
def test_segments_tile_the_batch_and_positions_count_from_the_root(groups: list[Group], share: bool) -> None:
    batch = pack(groups, share=share)
    end = 0
    for i, segment in enumerate(batch.segments):
        assert (segment.start, segment.parent < i, segment.length > 0) == (end, True, True)
        end += segment.length
    computed = sum(size(group, share=share) for group in groups)
    assert end == len(batch.tokens_T) and (end <= computed if share else end == computed)
    assert batch.positions_T.tolist() == [len(context(batch, i)) - 1 for i in range(end)]


@given(many)
def test_units_are_counted(groups: list[Group]) -> None:
    batch = pack(groups)
    flat = [sequence for group in groups for sequence in group]
    assert batch.count("group") == len(groups)
    assert batch.count("sequence") == len(flat)
    assert batch.count("token") == sum(sum(sequence.weights[1:]) for sequence in flat)
    assert len(batch.read_N) == sum(sequence.learned for sequence in flat)


@given(many, st.integers(1, 60))
def test_micro_batches_hold_each_group_once_within_the_budget(groups: list[Group], budget: int) -> None:
    batches = micro_batches(groups, budget)
    key = [sorted(str(wanted(s)) for group in groups for s in group), sorted(str(reads) for b in batches for reads in found(b))]
    assert key[0] == key[1]
    assert all(len(batch.tokens_T) <= budget or batch.groups == 1 for batch in batches)
    assert sum(batch.groups for batch in batches) == len(groups)
    assert [len(batch.segments) > 0 for batch in batches] == [True] * len(batches)


@given(group())
def test_a_shared_prefix_is_common_leaves_a_token_and_is_long_enough(one: Group) -> None:
    prefix = shared_prefix(one)
    assert prefix == 0 or (prefix >= MIN_SHARED and len(one) > 1)
    assert len({tuple(sequence.tokens[:prefix]) for sequence in one}) == 1
    assert all(len(sequence.tokens) > prefix for sequence in one)


def test_equal_sequences_keep_their_last_token() -> None:
    twin = Sequence([3] * 10, [1.0] * 10)
    assert shared_prefix((twin, twin)) == 9
    assert size((twin, twin)) == 11
    assert size((twin, twin), share=False) == 20


def test_a_system_prompt_is_stored_once_for_all_rows_and_each_question_once_for_its_answers() -> None:
    system = list(range(10, 50))
    groups = [tuple(Sequence([*system, *[60 + i] * 9, *[80 + i + j] * 3], [0.0] * 49 + [1.0] * 3) for j in range(2)) for i in range(4)]
    batch = pack(groups)
    assert [segment.length for segment in batch.segments] == [40, *[9, 3, 3] * 4]
    assert [segment.parent for segment in batch.segments] == [-1, *(p for i in range(4) for p in (0, 1 + 3 * i, 1 + 3 * i))]
    assert [context(batch, last) for last in batch.last_S.tolist()] == [tuple(s.tokens) for group in groups for s in group]
    two = pack([(group[0],) for group in groups[:2]])
    assert len(two.segments) == 2, "40 tokens saved once are not worth an edge"


def test_some_answers_may_share_more_than_others() -> None:
    first, second = [3] * 20, [4] * 12
    rows = tuple(Sequence([*first, *tail], [1.0] * (20 + len(tail))) for tail in ([*second, 5], [*second, 6], [7]))
    assert [segment.length for segment in pack([rows]).segments] == [20, 12, 1, 1, 1]


def test_longest_come_first_and_order_does_not_depend_on_chance() -> None:
    groups = [(Sequence([3] * length, [1.0] * length),) for length in (2, 9, 5, 9)]
    first, second = micro_batches(groups, 18)
    assert [segment.length for segment in first.segments] == [9, 9]
    assert [segment.length for segment in second.segments] == [5, 2]


def test_nothing_gives_nothing() -> None:
    assert micro_batches([], 100) == []
    assert len(pack([]).read_N) == 0
