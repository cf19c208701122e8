from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hone.core.seal import sealed
from hone.report.card import render
from hone.report.folder import read_run
from hone.report.proofs import differing

SETTINGS = {"tuning": {"method": "lora", "rank": 16, "alpha": None}, "seed": 42, "output": {"folder": "elsewhere"}}
CLAIMS = [
    {"says": "A step has one gradient.", "measured": 2e-7, "bound": 1e-4, "unit": "of the gradient", "holds": True},
    {"says": "The reference is the base.", "measured": None, "bound": 1e-4, "unit": "nats", "holds": True},
    {"says": "It comes back.", "measured": 0.3, "bound": 1e-5, "unit": "nats", "holds": False},
]


def document(**other: Any) -> str:
    whole = {"settings": SETTINGS, "versions": {"hone": "1"}, "small": {"architecture": "Llama", "parameters": 9}, "proofs": CLAIMS}
    return json.dumps(sealed(whole | other))


def test_the_card_shows_what_was_proved(make_run: Callable[..., Path]) -> None:
    body = render(read_run(make_run(proof__json=document())))
    assert "1 of 2 claims were proved" in body
    assert "| A step has one gradient. | 2e-07 | 0.0001 of the gradient |" in body
    assert "| It comes back. | 0.3 **fails** | 1e-05 nats |" in body


def test_without_a_record_the_card_says_nothing_of_proofs(make_run: Callable[..., Path]) -> None:
    assert "Proofs" not in render(read_run(make_run()))


def test_a_changed_record_counts_for_nothing(make_run: Callable[..., Path]) -> None:
    forged = json.loads(document()) | {"proofs": CLAIMS[:1]}
    body = render(read_run(make_run(proof__json=json.dumps(forged))))
    assert "its seal does not fit" in body and "were proved" not in body


def test_a_record_of_other_settings_counts_for_nothing(make_run: Callable[..., Path]) -> None:
    body = render(read_run(make_run(proof__json=document(settings={"tuning": {"method": "lora", "rank": 64}}))))
    assert "other settings" in body and "tuning.rank" in body


def test_what_was_left_open_may_be_filled_in() -> None:
    run = {"tuning": {"method": "lora", "rank": 16, "alpha": 32.0}, "seed": 42, "output": {"folder": "here"}}
    assert differing(SETTINGS, run) == []
    assert differing({"seed": 7}, run) == ["seed"]
