"""Every historical bug, put back, is caught by the proof that should catch it; and no proof cries where nothing is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from hone.core.errors import catalogue
from hone.prove import PROOFS
from tests.house.source import ROOT
from tests.zoo import artifacts, folders, losses, models, rows, words
from tests.zoo.base import BUGS, FLAWS, table
from tests.zoo.given import KINDS as GIVEN
from tests.zoo.given import given, said_of
from tests.zoo.kit import KINDS, Kit

assert artifacts and losses and models and words and rows and folders, "they register what they keep"


@pytest.fixture(scope="module")
def kit(tiny_tokenizer: PreTrainedTokenizerFast) -> Kit:
    return Kit(tiny_tokenizer)


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_caught(name: str, kit: Kit) -> None:
    one = BUGS[name]
    proof = PROOFS[one.caught]
    found = proof.of(one.mutate(kit.subject(one.on)))
    assert found.measured is not None, f"{proof.name} says nothing here: {found.where}"
    assert not found.holds, f"{proof.name} does not notice: {found.measured} <= {found.bound}"
    assert "broke off" not in found.where, found.where


CATCHERS = sorted({(one.on, one.caught) for _, one in BUGS.items()} | {("decomposed", "resume")})
"""Matrices that a decomposition leaves lie in memory the other way round, and so must their moments when a run is taken up."""


@pytest.mark.parametrize(("kind", "name"), CATCHERS)
def test_where_nothing_is_wrong_the_same_proof_holds(kind: str, name: str, kit: Kit) -> None:
    found = PROOFS[name].of(kit.subject(kind))
    assert found.measured is not None and found.holds, f"{found.measured} at {found.where}"


@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_named_before_anything_is_trained(name: str, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    one = FLAWS[name]
    assert one.caught in said_of(one.mutate(given(one.on, tiny_tokenizer)), tmp_path)


@pytest.mark.parametrize("kind", GIVEN)
def test_where_nothing_is_wrong_nothing_is_said(kind: str, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    assert said_of(given(kind, tiny_tokenizer), tmp_path) == set()


def test_the_zoo_is_large_and_nobody_in_it_is_idle() -> None:
    assert len(BUGS) >= 30
    assert {one.on for _, one in BUGS.items()} <= KINDS.keys() and {one.on for _, one in FLAWS.items()} == GIVEN.keys()
    assert {one.caught for _, one in BUGS.items()} <= set(PROOFS) and {one.caught for _, one in FLAWS.items()} <= set(catalogue())
    assert all(len(one.about) > 20 for shelf in (BUGS, FLAWS) for _, one in shelf.items())


def test_the_page_lists_exactly_the_zoo() -> None:
    page = Path(ROOT / "docs" / "zoo.md").read_text("utf-8")
    assert table(BUGS) in page and table(FLAWS) in page, "docs/zoo.md differs from the zoo: python -m tests.zoo prints its tables"
    assert f"{len(BUGS)} bugs" in page and f"{len(FLAWS)} flaws" in page
