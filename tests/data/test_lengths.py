"""What becomes of long sequences: nothing is learned twice, nothing is lost unseen."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.core.types import Origin, Sequence
from hone.data.cache import Cache, Groups
from hone.data.lengths import fit
from tests.data.kit import fault

ORIGIN = Origin("rows.jsonl", 7)
WEIGHTS = st.lists(st.sampled_from([0.0, 0.0, 1.0, 0.3]), min_size=2, max_size=60)


def sequence(weights: list[float], first: int = 0) -> Sequence:
    return Sequence(list(range(first, first + len(weights))), weights, {"label": 1.0}, ORIGIN)


def learned(one: Sequence) -> list[int]:
    return [token for token, weight in list(zip(one.tokens, one.weights, strict=True))[1:] if weight]


@given(weights=WEIGHTS, limit=st.integers(2, 70))
def test_splitting_learns_every_target_once_after_a_token_that_stood_before_it(weights: list[float], limit: int) -> None:
    whole = sequence(weights)
    pieces = [piece[0] for piece in fit((whole,), limit=limit, overflow="split").pieces]
    assert sorted(token for piece in pieces for token in learned(piece)) == learned(whole)
    assert all(len(piece.tokens) <= limit for piece in pieces)
    assert all(b == a + 1 for piece in pieces for a, b in pairwise(piece.tokens))
    assert all(piece.facts == whole.facts and piece.origin == ORIGIN for piece in pieces)


@given(weights=WEIGHTS, limit=st.integers(2, 70))
def test_truncation_keeps_the_beginning_and_counts_the_rest(weights: list[float], limit: int) -> None:
    whole = sequence(weights)
    if whole.learned and not any(weights[1:limit]):
        with fault("D028", where="rows.jsonl:7", fix="data.max_length") as caught:
            fit((whole,), limit=limit, overflow="truncate")
        needed = int(caught.error.fix.split("at least ")[1].split(",")[0])
        assert fit((whole,), limit=needed, overflow="truncate").pieces[0][0].learned >= 1
        return
    if not whole.learned and len(weights) > limit:
        return
    fitted = fit((whole,), limit=limit, overflow="truncate")
    ((kept,),) = fitted.pieces
    assert (kept.tokens, kept.weights) == (whole.tokens[:limit], weights[:limit])
    assert fitted.cut == len(weights) - len(kept.tokens)


def test_no_length_is_advised_that_the_model_does_not_take() -> None:
    long = sequence([0.0] * 90 + [1.0])
    with fault("D028", fix="takes more than 50 tokens"):
        fit((long,), limit=20, overflow="truncate", most=50)
    with fault("D033", fix="set data.overflow"):
        fit((long,), limit=20, overflow="drop", most=50)
    with fault("D028", fix="at least 91"):
        fit((long,), limit=20, overflow="truncate", most=100)


def test_a_pair_loses_its_targets_if_one_side_does() -> None:
    short, long = sequence([0.0, 1.0]), sequence([0.0] * 9 + [1.0])
    assert fit((short, long), limit=10, overflow="truncate").cut == 0
    with fault("D028", fix="at least 10"):
        fit((short, long), limit=9, overflow="truncate")


@pytest.mark.parametrize("overflow", ["drop", "error"])
def test_a_long_row_is_refused_where_that_is_asked_for(overflow: str) -> None:
    with fault("D033", where="rows.jsonl:7", what="10 tokens", fix="data.max_length to 10"):
        fit((sequence([1.0] * 10),), limit=9, overflow=overflow)  # type: ignore[arg-type]
    assert fit((sequence([1.0] * 10),), limit=10, overflow=overflow).cut == 0  # type: ignore[arg-type]


@given(st.lists(st.lists(WEIGHTS, min_size=1, max_size=3), max_size=6))
def test_the_cache_gives_back_what_was_put_in(groups: list[list[list[float]]]) -> None:
    made = [tuple(sequence(weights, first=10 * i) for weights in group) for i, group in enumerate(groups)]
    cache = Cache()
    assert [cache.append(group) for group in made] == list(range(len(made)))
    found = Groups(cache, range(len(made)))
    assert list(found) == made
    assert found[:2] == made[:2]
    assert len(found) == len(made)
    assert list(Groups(cache, [*range(len(made))][::-1])) == made[::-1]


def test_the_hash_sees_tokens_weights_borders_and_order() -> None:
    def hashed(*groups: tuple[Sequence, ...], order: tuple[int, ...] = (0, 1)) -> str:
        cache = Cache()
        for group in groups:
            cache.append(group)
        return Groups(cache, order[: len(groups)]).hash()

    a, b = (sequence([0.0, 1.0, 1.0]),), (sequence([0.0, 1.0]),)
    different = [hashed(a, b), hashed(a, b, order=(1, 0)), hashed(a, a), hashed(a), hashed((sequence([0.0, 1.0, 0.5]),), b)]
    different += [hashed((sequence([0.0, 1.0, 1.0], 5),), b), hashed((Sequence([0, 1, 2, 0, 1], [0.0, 1.0, 1.0, 0.0, 1.0]),))]
    assert len(set(different)) == len(different)
    assert hashed(a, b) == different[0]
