"""The doctor on charts that real runs of a small model left behind: each fault is found, healthy runs are left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import catalogue
from hone.plan.doctor import FINDINGS, Chart, Rows, diagnose
from hone.plan.doctor.fit import band

STORED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("charts.json").read_text("utf-8"))
SICK = [name for name, stored in STORED.items() if stored["must"]]
WELL = [name for name in STORED if name not in SICK]


def chart(name: str) -> Chart:
    """A stored chart."""
    stored = STORED[name]
    series = {key: [(step, value) for step, value in points] for key, points in stored["series"].items()}
    return Chart(
        settings=stored["settings"],
        series=series,
        facts=stored["facts"],
        rows=[Rows(step, losses) for step, losses in stored["rows"]],
        names=[f"rows.jsonl:{i + 1}" for i in range(len(stored["answers"]))],
        answers=stored["answers"],
        ledger=stored["ledger"],
        probe=stored["probe"],
    )


def found(one: Chart) -> list[str]:
    return [finding.code for finding in diagnose(one).findings]


def test_there_are_enough_of_both() -> None:
    assert len(SICK) >= 20 and len(WELL) >= 10
    assert {code for name in SICK for code in STORED[name]["must"]} >= FINDINGS.keys() - {"H002"}


@pytest.mark.parametrize("name", SICK)
def test_a_fault_is_found_with_a_verdict_evidence_and_a_remedy(name: str) -> None:
    must = STORED[name]["must"]
    named = [finding for finding in diagnose(chart(name)).findings if finding.code in must]
    assert named, f"{name}: {found(chart(name))}"
    for finding in named:
        assert finding.verdict and finding.evidence and finding.remedies and 0.5 <= finding.confidence < 1


@pytest.mark.parametrize("name", WELL)
def test_a_healthy_run_is_left_alone(name: str) -> None:
    assert found(chart(name)) == []


def test_without_evidence_nothing_is_claimed() -> None:
    """Every finding says what it lacks; none guesses."""
    nothing = diagnose(Chart(settings={"tuning": {"rank": 16}}))
    assert nothing.findings == ()
    assert "overfitting" in nothing.unknown and "label noise" in nothing.unknown and "forgetting" in nothing.unknown
    learning = Chart(settings={"rollout": {}, "objective": {"name": "grpo"}})
    assert {"reward hacking", "entropy collapse", "constant reward", "stale rollout weights"} <= diagnose(learning).unknown.keys()


def test_a_run_at_work_is_not_asked_about_its_end() -> None:
    short = chart("4 steps")
    assert "H006" in found(short)
    assert "H006" not in found(replace(short, running=True))


def test_overfitting_is_cured_where_it_was_best_and_the_rate_is_tested_both_ways() -> None:
    one = next(finding for finding in diagnose(chart("16 new facts, all weights")).findings if finding.code == "H001")
    best = chart("16 new facts, all weights").best
    assert best is not None and one.mark == (best[0], "best")
    assert one.remedies[0].change["optim.max_steps"] == best[0] and one.remedies[0].change["eval.keep_best"] is True
    rates = [arm["optim.learning_rate"] for arm in one.remedies[1].arms]
    assert len(rates) == 2 and rates[1] == pytest.approx(4 * rates[0], rel=0.1)


def test_rows_that_contradict_their_kin_are_named() -> None:
    one = next(finding for finding in diagnose(chart("35 % of the labels wrong")).findings if finding.code == "H008")
    assert any("rows.jsonl:" in told for told in one.evidence)


def test_skipped_steps_are_a_loss_that_runs_away() -> None:
    assert "H005" in found(replace(chart("LoRA as advised"), skipped=3))


def test_a_zero_loss_of_masked_labels_is_not_taken_for_success() -> None:
    zero = [(float(step), 0.0) for step in range(1, 9)]
    one = Chart(settings={}, series={"loss": zero, "learned_tokens": zero, "grad_norm": zero, "update_ratio": zero})
    assert found(one) == ["H011"]


def test_the_bands_interpret() -> None:
    assert "heart" in band(0.1) and "usual" in band(0.7) and "above 1" in band(1.4)


def test_every_finding_is_explained_in_both_languages() -> None:
    for code, kind in FINDINGS.items():
        assert catalogue()[code].zh, code
        assert kind.source and kind.look.__doc__
