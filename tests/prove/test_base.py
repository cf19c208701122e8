"""How a proof is judged: numbers, bounds, what does not apply, and what breaks off."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from hone.core.errors import catalogue
from hone.prove import PROOFS
from hone.prove.base import Found, Measure, Mute, Proof, worst

NOBODY: Any = None


def made(measure: Measure) -> Proof:
    return Proof("made", "V001", measure, 0.5, "nats")


@pytest.mark.parametrize(("number", "holds"), [(0.0, True), (0.5, True), (0.6, False), (math.inf, False), (math.nan, False)])
def test_a_number_holds_up_to_its_bound(number: float, holds: bool) -> None:
    assert made(lambda subject: Found(number)).of(NOBODY).holds is holds


def test_what_does_not_apply_is_no_failure_and_says_why() -> None:
    found = made(lambda subject: Mute("there is no reference")).of(NOBODY)
    assert found.holds and found.measured is None and found.where == "there is no reference"


def test_what_breaks_off_is_not_proved() -> None:
    found = made(lambda subject: Found(1 / 0)).of(NOBODY)
    assert not found.holds and "ZeroDivisionError" in found.where
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["measured"] is None


def test_what_is_no_number_is_worst() -> None:
    assert worst({"a": 2.0, "b": math.nan, "c": 1.0}).where == "b"


def test_every_proof_has_a_claim_and_an_entry() -> None:
    assert len(PROOFS) >= 25
    assert len({PROOFS[name].code for name in PROOFS}) == len(PROOFS)
    for proof in [PROOFS[name] for name in PROOFS]:
        assert proof.says.endswith(".") and len(proof.says) < 160, proof.name
        assert proof.code in catalogue()
