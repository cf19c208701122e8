from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hone.report.folder import read_run
from hone.report.numbers import NO_BREAK
from hone.report.scores import Measure, Score, averages, read_scores
from hone.report.verdict import findings, judge


def score(before: float | None, after: float | None, *, room: float = 0.02, metric: str = "exact_match", task: str = "facts") -> Score:
    sides = [None if v is None else Measure(v, v - room, v + room) for v in (before, after)]
    return Score(task, metric, 50, *sides)


def said(folder: Path, scores: list[Score]) -> tuple[str, str]:
    verdict = judge(read_run(folder), scores)
    return verdict.tone, f"{verdict.headline} {verdict.ground}".replace(NO_BREAK, " ")


@pytest.mark.parametrize(
    ("scores", "tone", "words"),
    [
        ([score(0.1, 0.9)], "good", "rose from 10.0 % to 90.0 %. 1 task, 50 questions"),
        ([score(0.1, 0.9), score(0.2, 0.8)], "good", "rose from 15.0 % to 85.0 %"),
        ([score(0.1, 0.9), score(0.2, 0.21)], "good", "1 of 2"),
        ([score(0.1, 0.9), score(0.8, 0.3, task="till")], "mixed", "clearly worse on: till"),
        ([score(0.6, 0.2)], "bad", "fell from 60.0 % to 20.0 %"),
        ([score(0.5, 0.52)], "mixed", "may be chance"),
        ([score(0.5, 0.5)], "mixed", "stayed at 50.0 %"),
        ([score(0.1, 0.9, metric="f1")], "good", "The score on unseen questions"),
        ([score(9.0, 3.0, metric="perplexity")], "good", "Perplexity went from 9 to 3"),
        ([score(3.0, 9.0, metric="perplexity")], "bad", "Perplexity went from 3 to 9"),
        ([score(None, 0.7)], "plain", "no second measurement"),
        ([], "good", "Held-out loss fell from 2.310 to 0.537"),
    ],
)
def test_the_headline_says_what_the_numbers_justify(make_run: Callable[..., Path], scores: list[Score], tone: str, words: str) -> None:
    got, text = said(make_run(), scores)
    assert got == tone and words in text


def test_without_held_out_data_it_says_so(make_run: Callable[..., Path]) -> None:
    metrics = '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 1.0}\n'
    assert said(make_run(metrics__jsonl=metrics), []) == (
        "plain",
        "Training loss went from 3.000 to 1.000. Nothing was held out, so this says nothing yet about text that it has not seen.",
    )


def test_an_empty_folder_claims_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, [])[1].startswith("Nothing has been measured yet.")


def test_averages_count_each_task_once_and_only_where_both_sides_are_known() -> None:
    assert averages([score(0.0, 1.0), score(0.5, 0.5), score(None, 0.3), score(9.0, 3.0, metric="perplexity")]) == (0.25, 0.75)
    assert averages([score(None, 0.3)]) is None


def test_scores_are_read_with_and_without_intervals() -> None:
    tasks = [
        {"task": "a", "metric": "f1", "n": 3, "after": {"value": 0.5}},
        {"task": "b", "before": None, "after": {"value": "high"}},
        "rubbish",
        {"task": "c", "n": 4, "before": {"value": 0.1, "low": 0.0, "high": 0.3}, "after": {"value": 0.9, "low": 0.7, "high": 1.0}},
    ]
    a, c = read_scores({"tasks": tasks})
    assert (a.before, a.after, a.change, a.apart) == (None, Measure(0.5, 0.5, 0.5), "", False)
    assert c.apart and c.change == "+80.0 points" and c.after is not None and c.after.interval == f"70.0 to 100.0{NO_BREAK}%"
    assert read_scores({}) == [] and read_scores({"tasks": 5}) == []


def test_findings_name_overfitting_skips_warnings_and_runaway_answers(make_run: Callable[..., Path]) -> None:
    losses = [(0, 2.0, 2.0), (10, 0.9, 0.8), (20, 1.1, 0.4), (30, 1.4, 0.2)]
    metrics = "".join(json.dumps({"step": step, "eval_loss": aside, "loss": loss}) + "\n" for step, aside, loss in losses)
    run = read_run(make_run(metrics__jsonl=metrics, evaluation__json='{"stopped": {"before": 0.1, "after": 0.8}}'))
    text = " ".join(finding.text for finding in findings(run, None))
    for words in ("best at step 10 and has risen by 56 % since (H001)", "1 step skipped", "wandb failed and is switched off.", "Only 80.0"):
        assert words in text


def test_a_healthy_run_has_nothing_bad_to_say(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run(events__jsonl='{"t": 1, "kind": "started"}\n{"t": 9, "kind": "finished", "step": 40}\n'))
    assert [finding.tone for finding in findings(run, None)] == ["good"]


def test_a_small_loss_is_no_percentage() -> None:
    assert Measure.of("bits_per_byte", 0.1, 0.09, 0.12).text == "0.1"
    assert Measure.of("accuracy", 0.1, 0.09, 0.12).text == "10.0\N{NO-BREAK SPACE}%"
