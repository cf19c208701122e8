"""The diary survives kills, and rewinds for a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

from hone.core.events import Events


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_and_metrics_are_json_lines(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.emit("started", model="harbour é")
    events.metrics(1, {"loss": 0.5, "grad_norm": float("nan")})
    assert lines(tmp_path / "events.jsonl")[0]["kind"] == "started"
    assert lines(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.5, "grad_norm": None}]


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events.metrics(1, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    events.metrics(3, {"loss": 3.0})
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
    events.rewind(1)
    assert [line["step"] for line in lines(tmp_path / "metrics.jsonl")] == [1]


def test_without_a_folder_it_keeps_quiet() -> None:
    events = Events(None)
    events.emit("started")
    events.metrics(1, {"loss": 1.0})
    events.rewind(0)
