from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hone import tuning
from hone.report.facts import APART, METHODS, WHOLE, Facts, on_hub
from hone.report.folder import read_run
from hone.report.story import date, samples, timeline


def test_the_timeline_is_in_words_and_joins_checkpoints(make_run: Callable[..., Path]) -> None:
    lines = timeline(read_run(make_run()))
    assert [line.title for line in lines] == [
        "Started",
        "2 checkpoints: step 10, 20",
        "Stopped at step 21: asked to stop",
        "Resumed at step 20",
        "Skipped step 25: the loss was not finite",
        "The tracker wandb failed and is switched off",
        "Finished at step 40",
    ]
    assert [line.when for line in lines[:4]] == ["0:00", "0:20", "0:21", "1:06:40"]
    assert lines[4].detail == "code F010 · rows town/rows.jsonl:7"


@pytest.mark.parametrize(
    ("event", "title", "detail"),
    [
        ({"kind": "loss_spike", "step": 9, "what": "the loss jumped from about 1 to 9"}, "The loss jumped from about 1 to 9 at step 9", ""),
        ({"kind": "early_stop", "step": 9, "best_step": 6}, "Stopped early at step 9: the held-out loss was best at step 6", ""),
        ({"kind": "evaluated", "step": 9, "eval_loss": 0.25}, "Evaluated at step 9: held-out loss 0.250", ""),
        ({"kind": "data_changed", "rows": list(range(10))}, "Data changed", "rows 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"),
        ({"kind": "stopped"}, "Stopped", ""),
        ({"kind": "resumed", "step": 9, "command": "hone train", "environment": {"a": 1}}, "Resumed at step 9", ""),
        ({"kind": "best_kept", "step": 6, "loss": 0.5}, "Kept the weights of step 6, the best on held-out data", "loss 0.5"),
        ({"kind": "finished", "step": 9, "reason": "the end", "artifact": "adapter"}, "Finished at step 9", "artifact adapter"),
        ({"kind": "finished", "step": 9, "reason": "no gain"}, "Finished at step 9: no gain", ""),
    ],
)
def test_each_kind_of_event_has_its_words(make_run: Callable[..., Path], event: dict[str, object], title: str, detail: str) -> None:
    (line,) = timeline(read_run(make_run(events__jsonl=json.dumps(event))))
    assert (line.title, line.detail) == (title, detail)


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


def test_every_method_has_a_name_and_the_export_that_it_allows() -> None:
    assert set(METHODS) == {name for name, _ in tuning.METHODS.items()}
    about = {name: kind.about for name, kind in tuning.METHODS.items()}
    assert {name for name, known in about.items() if known.artifact == "model"} == WHOLE
    assert {name for name, known in about.items() if known.unmergeable} == APART


def test_an_unfinished_run_is_resumed_with_the_same_command(make_run: Callable[..., Path]) -> None:
    facts = Facts(read_run(make_run(events__jsonl='{"kind": "started", "command": "hone train sft data=x.jsonl"}')))
    (command,) = facts.commands(["train"])
    assert command == ("Go on from the last checkpoint", "hone train sft data=x.jsonl")


def test_the_date_is_utc(make_run: Callable[..., Path]) -> None:
    assert date(read_run(make_run())) == "1970-01-01 00:16 UTC"
    assert date(read_run(make_run(name="other", events__jsonl=""))) == ""
