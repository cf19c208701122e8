"""The batches of a step depend on the seed and the step, and on nothing that happened before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.core.types import Batch, Group, Origin, Sequence
from hone.data.offline import Offline

counts = st.integers(1, 23)
sizes = st.integers(1, 9)
seeds = st.integers(0, 5)


def groups(count: int) -> list[Group]:
    return [(Sequence([3] * (1 + row % 7), [1.0] * (1 + row % 7), origin=Origin("test", row)),) for row in range(count)]


def source(count: int, size: int, seed: int = 0, **options: object) -> Offline:
    return Offline(groups(count), step_groups=size, budget=12, seed=seed, **options)  # type: ignore[arg-type]


def rows(batches: list[Batch]) -> list[int]:
    return [origin.row for batch in batches for origin in batch.origins]


def layout(batches: list[Batch]) -> list[tuple[list[int], list[int], tuple[Origin, ...]]]:
    return [(batch.tokens_T.tolist(), batch.read_N.tolist(), batch.origins) for batch in batches]


@given(counts, sizes, seeds, st.integers(1, 4))
def test_every_epoch_is_a_permutation(count: int, size: int, seed: int, epochs: int) -> None:
    one = source(count, size, seed, epochs=epochs)
    steps = [rows(batches) for batches in one.steps()]
    assert len(steps) == len(one) == epochs * one.steps_per_epoch
    for epoch in range(epochs):
        seen = steps[epoch * one.steps_per_epoch : (epoch + 1) * one.steps_per_epoch]
        assert sorted(row for step in seen for row in step) == list(range(count))
        assert all(len(step) == size for step in seen[:-1])


@given(counts, sizes, seeds, st.data())
def test_a_run_resumes_at_any_step(count: int, size: int, seed: int, data: st.DataObject) -> None:
    whole = [layout(batches) for batches in source(count, size, seed, epochs=3).steps()]
    first = data.draw(st.integers(1, len(whole) + 1))
    assert [layout(batches) for batches in source(count, size, seed, epochs=3).steps(first)] == whole[first - 1 :]
    step = data.draw(st.integers(1, len(whole)))
    assert layout(source(count, size, seed).batches(step)) == whole[step - 1]


def test_seeds_and_epochs_differ() -> None:
    one = source(20, 20, epochs=2)
    assert one.chosen(1) != one.chosen(2)
    assert one.chosen(1) != source(20, 20, seed=1).chosen(1)
    assert one.chosen(1) != list(range(20))


def test_unshuffled_keeps_the_order_of_the_file() -> None:
    one = source(7, 3, shuffle=False, epochs=2)
    assert [one.chosen(step) for step in range(1, 7)] == [[0, 1, 2], [3, 4, 5], [6]] * 2


@pytest.mark.parametrize(("options", "steps"), [({"epochs": 0.5}, 2), ({"epochs": 2.5}, 10), ({"max_steps": 3}, 3), ({"epochs": 0.01}, 1)])
def test_length(options: dict[str, float], steps: int) -> None:
    one = source(16, 4, **options)
    assert len(one) == len(list(one.steps())) == steps


def test_the_budget_changes_neither_steps_nor_rows() -> None:
    tight, loose = source(16, 4), Offline(groups(16), step_groups=4, budget=10**9)
    for step in range(1, 5):
        assert sorted(rows(tight.batches(step))) == sorted(rows(loose.batches(step)))
        assert len(loose.batches(step)) == 1
    assert max(len(tight.batches(step)) for step in range(1, 5)) > 1
