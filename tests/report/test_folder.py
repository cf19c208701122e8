from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hone.core.errors import HoneError
from hone.report.folder import read_run


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HoneError) as caught:
        read_run(tmp_path / "nowhere")
    assert caught.value.code == "F061" and "nowhere" in caught.value.where


def test_an_empty_folder_names_every_missing_file_that_a_run_always_writes(tmp_path: Path) -> None:
    run = read_run(tmp_path)
    assert set(run.problems) == {"resolved.json", "metrics.jsonl", "events.jsonl", "ledger.json"}
    assert not run.steps and not run.events


def test_half_a_line_is_passed_over_and_counted(make_run: Callable[..., Path]) -> None:
    text = '{"step": 1, "loss": 2.0}\n{"step": 2, "lo'
    run = read_run(make_run(metrics__jsonl=text))
    assert run.series("loss") == [(1.0, 2.0)]
    assert "1 unreadable line" in run.problems["metrics.jsonl"]


def test_a_step_written_twice_counts_once_and_the_later_line_wins(make_run: Callable[..., Path]) -> None:
    rows = [(1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5), (3, 1.5)]
    text = "\n".join(json.dumps({"step": step, "loss": loss}) for step, loss in rows)
    assert read_run(make_run(metrics__jsonl=text)).series("loss") == [(1.0, 3.0), (2.0, 2.5), (3.0, 1.5)]


def test_a_null_loss_is_a_step_but_not_a_point(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert len(run.steps) == 40 and len(run.series("loss")) == 39
    assert [step for step, _ in run.series("eval_loss")] == [1, 10, 20, 30, 40]


def test_a_line_separator_inside_a_text_does_not_end_the_line(make_run: Callable[..., Path]) -> None:
    event = {"t": 1.0, "kind": "sample", "prompt": "a\u2028b", "answer": "c\x85d"}
    run = read_run(make_run(events__jsonl=json.dumps(event, ensure_ascii=False) + "\n"))
    assert run.events == (event,)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"tasks": ', "\x00\x01", "[" * 100_000])
def test_a_damaged_document_is_a_problem_not_a_crash(make_run: Callable[..., Path], text: str) -> None:
    run = read_run(make_run(evaluation__json=text))
    assert not run.evaluation and "evaluation.json" in run.problems["evaluation.json"]
