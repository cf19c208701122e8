"""Verdicts on steps: what is skipped, what is reported, when the run stops and what it says."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.train.health import Health

ROWS = [Origin("train.jsonl", row) for row in range(1, 17)]
NAN, INF = math.nan, math.inf


class Diary:
    """Keeps events, as the run's diary does."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})


def watched(**options: Any) -> tuple[Health, Diary]:
    diary = Diary()
    return Health(diary.emit, **options), diary


NOT_FINITE = [(NAN, 1.0, "loss"), (INF, NAN, "loss"), (2.0, INF, "gradient"), (2.0, NAN, "gradient")]


@pytest.mark.parametrize(("loss", "norm", "culprit"), NOT_FINITE)
def test_a_step_that_is_not_finite_is_skipped_and_its_rows_named(loss: float, norm: float, culprit: str) -> None:
    health, diary = watched()
    assert health.observe(5, loss, norm, ROWS[:2]) == "skip"
    rows, what = ["train.jsonl:1", "train.jsonl:2"], f"the {culprit} was not finite"
    assert diary.events == [{"kind": "skipped_step", "code": "F010", "step": 5, "what": what, "rows": rows}]
    assert health.observe(6, 2.0, 1.0, ROWS) == "ok" and health.skipped == 1


def test_only_steps_in_a_row_stop_the_run() -> None:
    health, _ = watched(limit=3)
    for step in range(0, 30, 3):
        assert [health.observe(step + i, x, 1.0, ROWS) for i, x in enumerate((NAN, NAN, 2.0))] == ["skip", "skip", "ok"]
    health.observe(30, NAN, 1.0, ROWS), health.observe(31, NAN, 1.0, ROWS)
    with pytest.raises(HoneError) as caught:
        health.observe(32, NAN, 1.0, ROWS)
    assert caught.value.code == "F010" and "steps 30 to 32" in caught.value.what
    assert "train.jsonl:8 and 8 more" in caught.value.where


DIAGNOSES = [
    ([], NAN, "no step was ever finite"),
    ([2.0, 1.9, 1.8, 3.0, 5.0, 9.0, 20.0], NAN, "learning rate is probably too high"),
    ([2.0, 1.9, 1.8, 1.7, 1.6], NAN, "look at these rows"),
]


@pytest.mark.parametrize(("losses", "last", "advice"), DIAGNOSES)
def test_the_diagnosis_follows_what_happened_before(losses: list[float], last: float, advice: str) -> None:
    health, _ = watched(limit=1)
    for step, loss in enumerate(losses):
        health.observe(step, loss, 1.0, ROWS)
    with pytest.raises(HoneError, match=advice):
        health.observe(len(losses), last, 1.0, ROWS)


def test_a_gradient_alone_points_at_the_number_type() -> None:
    health, _ = watched(limit=1)
    for step in range(5):
        health.observe(step, 2.0, 1.0, ROWS)
    with pytest.raises(HoneError, match="wider number type"):
        health.observe(5, 2.0, INF, ROWS)


def test_a_spike_is_reported_and_let_through() -> None:
    rng, (health, diary) = random.Random(0), watched()
    for step in range(40):
        assert health.observe(step, 2.0 - 0.01 * step + rng.gauss(0, 0.1), 1.0, ROWS) == "ok"
    assert diary.events == []
    assert health.observe(40, 9.0, 1.0, ROWS) == "ok"
    assert [event["kind"] for event in diary.events] == ["loss_spike"] and "to 9" in diary.events[0]["what"]


def test_a_flat_loss_and_a_falling_one_are_no_spikes() -> None:
    health, diary = watched()
    for step in range(40):
        health.observe(step, 1.0 if step % 2 else 1.0005, 1.0, ROWS)
    health.observe(40, 0.1, 1.0, ROWS)
    assert diary.events == []


def test_a_resumed_watch_judges_as_the_uninterrupted_one() -> None:
    rng = random.Random(1)
    losses = [rng.choice([2.0 + rng.gauss(0, 0.1), 9.0, NAN]) if rng.random() < 0.3 else 2.0 + rng.gauss(0, 0.1) for _ in range(120)]
    whole, diary = watched(limit=9)
    for step, loss in enumerate(losses):
        whole.observe(step, loss, 1.0, ROWS)
    first, early = watched(limit=9)
    for step, loss in enumerate(losses[:57]):
        first.observe(step, loss, 1.0, ROWS)
    second, late = watched(limit=9)
    second.restore(json.loads(json.dumps(first.state())))
    for step, loss in enumerate(losses[57:], start=57):
        second.observe(step, loss, 1.0, ROWS)
    assert early.events + late.events == diary.events and second.state() == whole.state()
