from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hone.report.facts import Facts, on_hub
from hone.report.folder import read_run
from hone.report.story import date, samples, timeline


def test_the_timeline_is_in_words_and_joins_checkpoints(make_run: Callable[..., Path]) -> None:
    lines = timeline(read_run(make_run()))
    assert [line.title for line in lines] == [
        "Started",
        "2 checkpoints: step 10, 20",
        "Stopped at step 21: asked to stop",
        "Resumed at step 20",
        "Step 25 skipped",
        "the tracker wandb failed and is switched off",
        "Finished at step 40",
    ]
    assert [line.when for line in lines[:4]] == ["0:00", "0:20", "0:21", "1:06:40"]
    assert lines[4].detail == "rows town/rows.jsonl:7"


def test_samples_follow_one_prompt_through_training(make_run: Callable[..., Path]) -> None:
    (sample,) = samples(read_run(make_run()))
    assert list(sample.answers) == [("step 1", "rope rope rope"), ("step 30", "It opens at 7:30.")]


def test_time_at_work_leaves_out_the_pause_before_a_resume(make_run: Callable[..., Path]) -> None:
    facts = Facts(read_run(make_run()))
    assert facts.seconds == pytest.approx(21 + 10)
    assert facts.status[0] == "finished"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ("", "unknown"),
        ('{"kind": "started"}', "unfinished"),
        ('{"kind": "started"}\n{"kind": "stopped", "reason": "early"}', "stopped"),
        ('{"kind": "started"}\n{"kind": "stopped"}\n{"kind": "resumed"}', "unfinished"),
    ],
)
def test_status(make_run: Callable[..., Path], events: str, status: str) -> None:
    assert Facts(read_run(make_run(events__jsonl=events))).status[0] == status


def test_what_can_be_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights" / "tiny").mkdir(parents=True)
    names = ["Qwen/Qwen3-0.6B", "weights/tiny", "data/rows.jsonl", "../a", "/a/b", "a", "a/b/c", ""]
    assert [name for name in names if on_hub(name)] == ["Qwen/Qwen3-0.6B"]


def test_commands_name_only_verbs_that_exist_and_quote_the_path(make_run: Callable[..., Path]) -> None:
    facts = Facts(read_run(make_run(name="my run")))
    lines = [command.line for command in facts.commands(["chat", "train"])]
    assert lines[0].startswith("hone chat '") and lines[0].endswith("my run' --compare")
    assert lines[1].startswith("hone train sft ") and lines[1].endswith(" --fresh") and len(lines) == 2
    assert "export" in " ".join(command.line for command in facts.commands(["export"]))


def test_an_unfinished_run_is_resumed_with_the_same_command(make_run: Callable[..., Path]) -> None:
    facts = Facts(read_run(make_run(events__jsonl='{"kind": "started", "command": "hone train sft data=x.jsonl"}')))
    (command,) = facts.commands(["train"])
    assert command == ("Go on from the last checkpoint", "hone train sft data=x.jsonl")


def test_the_date_is_utc(make_run: Callable[..., Path]) -> None:
    assert date(read_run(make_run())) == "1970-01-01 00:16 UTC"
    assert date(read_run(make_run(name="other", events__jsonl=""))) == ""
