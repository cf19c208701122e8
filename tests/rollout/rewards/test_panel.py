"""Whatever a reward does, the run knows: faults are recorded for each answer, and the policy decides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.rollout.rewards import Panel, Tools, Written
from hone.rollout.rewards.panel import DULL, HOPELESS, Named

OWN = """
import os, sys, time

def good(answer, row):
    return len(answer) * row.get("scale", 1)

def raises(answer, row):
    return 1 / (len(answer) - 2)

def hangs(answer, row):
    time.sleep(60 if answer == "bb" else 0)
    return 1.0

def nan(answer, row):
    return float("nan") if answer == "bb" else 1.0

def nothing(answer, row):
    return None if answer == "bb" else True

def text(answer, row):
    return "high" if answer == "bb" else 1

def dies(answer, row):
    if answer == "bb":
        os._exit(3)
    return 1.0

def junk(answer, row):
    print("{\\"score\\": 99}", flush=True)
    sys.stdout.write("junk" * 10000)
    print("to stderr", file=sys.stderr)
    os.write(1, b"raw bytes")
    return 1.0

def leaves(answer, row):
    sys.exit("enough")

def too_few(answers, rows):
    return [1.0] * (len(answers) - 1)

def no_list(answers, rows):
    return 1.0

def many(answers, rows):
    return [len(answer) + row["scale"] for answer, row in zip(answers, rows)]
"""
ANSWERS = [Written(text, row={"scale": 2}, origin=Origin("p.jsonl", i)) for i, text in enumerate(("a", "bb", "ccc"), start=1)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("own") / "rewards.py"
    file.write_text(OWN)
    return str(file)


@pytest.mark.parametrize(
    ("name", "code", "scores"),
    [
        ("good", None, [2.0, 4.0, 6.0]),
        ("many", None, [3.0, 4.0, 5.0]),
        ("junk", None, [1.0, 1.0, 1.0]),
        ("raises", "R003", [-1.0, None, 1.0]),
        ("hangs", "R004", [1.0, None, 1.0]),
        ("nan", "R001", [1.0, None, 1.0]),
        ("nothing", "R001", [1.0, None, 1.0]),
        ("text", "R001", [1.0, None, 1.0]),
        ("dies", "R003", [1.0, None, 1.0]),
        ("leaves", "R003", [None, None, None]),
        ("too_few", "R002", [None, None, None]),
        ("no_list", "R002", [None, None, None]),
    ],
)
def test_what_a_users_function_may_do(own: str, name: str, code: str | None, scores: list[float | None]) -> None:
    told: list[dict[str, Any]] = []
    panel = Panel.of([f"{own}:{name}"], Tools(seconds=0.5), tell=lambda kind, **fields: told.append({"kind": kind, **fields}))
    verdict = panel.judge(ANSWERS)
    assert verdict.parts[name] == scores
    assert verdict.totals == [score or 0.0 for score in scores]
    faults = [i for i, score in enumerate(scores) if score is None]
    assert [event["where"] for event in told] == [f"p.jsonl:{i + 1}, reward '{name}'" for i in faults]
    assert {event["code"] for event in told} == ({code} if code else set())
    assert verdict.metrics().get("reward_failed", 0.0) == len(faults) / 3
    if code:
        assert Panel.of([f"{own}:{name}"], Tools(seconds=0.5), on_error="drop").judge(ANSWERS).totals == scores
        with pytest.raises(HoneError) as caught:
            Panel.of([f"{own}:{name}"], Tools(seconds=0.5), on_error="fail").judge(ANSWERS)
        assert caught.value.code == code


def test_what_a_function_prints_goes_to_the_log(own: str, tmp_path: Path) -> None:
    Panel.of([f"{own}:junk"], Tools(log=tmp_path / "log")).judge(ANSWERS[:1])
    said = (tmp_path / "log").read_text()
    assert "to stderr" in said and "raw bytes" in said and "99" in said


@pytest.mark.parametrize(("name", "says"), [("missing", "no function"), ("broken", "ZeroDivisionError")])
def test_a_function_that_is_not_there(tmp_path: Path, name: str, says: str) -> None:
    file = tmp_path / "own.py"
    file.write_text("x = 1 / 0" if name == "broken" else "def other(answer, row): return 1")
    with pytest.raises(HoneError, match=says) as caught:
        Panel.of([f"{file}:{name}"])
    assert caught.value.code == "C040"


def test_weights_names_and_metrics() -> None:
    wanted = [{"name": "number", "weight": 2.0}, {"name": "length", "most": 1, "weight": 0.5}, {"name": "length", "most": 100}]
    panel = Panel.of(wanted)
    verdict = panel.judge([Written("it is 7", row={"answer": "7"}), Written("8", row={"answer": "7"})])
    assert list(verdict.parts) == ["number", "length", "length 2"]
    assert verdict.parts["length"] == [1 / 3, 1.0]
    assert verdict.totals == pytest.approx([2.0 + 0.5 / 3 + 1.0, 0.5 + 1.0])
    assert verdict.metrics()["reward/number"] == 0.5
    assert "reward_failed" not in verdict.metrics()


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("numbr", "C003"),
        ({"weight": 1.0}, "C001"),
        ({"name": "number", "weight": math.inf}, "C001"),
        ({"name": "number", "colum": 1}, "C002"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted: Any, code: str) -> None:
    with pytest.raises(HoneError) as caught:
        Panel.of([wanted])
    assert caught.value.code == code


def test_a_reward_given_from_python_may_fail_too() -> None:
    def short(answers: Any) -> list[float]:
        return [1.0]

    def breaks(answers: Any) -> list[float]:
        raise RuntimeError("no")

    panel = Panel([Named("short", 1.0, short), Named("breaks", 1.0, breaks)])
    assert panel.judge(ANSWERS).totals == [0.0, 0.0, 0.0]


def test_a_constant_reward_is_noticed_and_then_stops_the_run() -> None:
    told: list[dict[str, Any]] = []
    panel = Panel([Named("same", 1.0, lambda answers: [0.5] * len(answers))], tell=lambda kind, **fields: told.append(fields))
    for _ in range(HOPELESS - 1):
        panel.judge(ANSWERS)
    assert {event["code"] for event in told} == {"R005"} and str(DULL) in told[0]["what"]
    with pytest.raises(HoneError) as caught:
        panel.judge(ANSWERS)
    assert caught.value.code == "R005"


def test_where_nobody_judges_nothing_is_missed() -> None:
    panel = Panel([])
    for _ in range(HOPELESS + 1):
        assert panel.judge(ANSWERS).totals == [0.0, 0.0, 0.0]


def test_one_different_answer_ends_the_watch() -> None:
    panel = Panel([Named("length", 1.0, lambda answers: [float(len(a.text)) for a in answers])])
    for _ in range(HOPELESS + 1):
        assert len(set(panel.judge(ANSWERS).totals)) > 1
