from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError, catalogue
from hone.core.events import Events
from hone.report.trackers import TRACKERS, Guarded, check_trackers, flatten, open_trackers


class Shelf:
    """A tracker that keeps its runs in a file, and breaks at a step if told to."""

    def __init__(self, file: Path, *, breaks_at: int = -1) -> None:
        self.file, self.breaks_at = file, breaks_at

    def _write(self, *words: object) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(words) + "\n")

    def start(self, settings: Mapping[str, Any]) -> None:
        if self.breaks_at == 0:
            raise ConnectionError("no network")
        self._write("start", dict(settings))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.breaks_at:
            raise OSError("disk full")
        self._write(step, dict(values))

    def finish(self) -> None:
        self._write("finish")


def kept(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run_through(folder: Path, shelf: Shelf) -> list[dict[str, Any]]:
    """A short run with a tracker; returns the events that it left."""
    guarded = Guarded("shelf", shelf, Events(folder))
    guarded.start({"tuning": {"rank": 4}})
    for step in range(1, 4):
        guarded.metrics(step, {"loss": 1.0 / step, "grad_norm": float("nan")})
    guarded.finish()
    return kept(folder / "events.jsonl")


def test_a_healthy_tracker_gets_everything_and_no_event_is_written(tmp_path: Path) -> None:
    assert run_through(tmp_path, Shelf(tmp_path / "shelf")) == []
    assert kept(tmp_path / "shelf") == [
        ["start", {"tuning": {"rank": 4}}],
        [1, {"loss": 1.0}],
        [2, {"loss": 0.5}],
        [3, {"loss": pytest.approx(1 / 3)}],
        ["finish"],
    ]


@pytest.mark.parametrize(("breaks_at", "before"), [(0, 0), (2, 2)])
def test_a_failing_tracker_is_switched_off_with_one_warning(tmp_path: Path, breaks_at: int, before: int) -> None:
    events = run_through(tmp_path, Shelf(tmp_path / "shelf", breaks_at=breaks_at))
    assert [(event["kind"], event["code"]) for event in events] == [("warning", "F026")]
    assert "shelf" in events[0]["what"] and events[0]["error"].split(":")[0] in ("ConnectionError", "OSError")
    assert len(kept(tmp_path / "shelf")) == before


def test_stopping_by_hand_is_not_a_fault_of_the_tracker(tmp_path: Path) -> None:
    class Interrupted(Shelf):
        def metrics(self, step: int, values: Mapping[str, float]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_through(tmp_path, Interrupted(tmp_path / "shelf"))


def test_names_are_checked_before_training(tmp_path: Path) -> None:
    for refuse in (check_trackers, partial(open_trackers, events=Events(tmp_path))):
        with pytest.raises(HoneError) as caught:
            refuse(["tensorbord"])
        assert caught.value.code == "C003" and "tensorboard" in caught.value.fix


def test_a_package_is_looked_for_without_being_loaded() -> None:
    for name in TRACKERS:
        if importlib.util.find_spec(name) is None:
            with pytest.raises(HoneError, match="C060"):
                check_trackers([f"{name}:my-project"])
        else:
            check_trackers([name])


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in TRACKERS:
        module = {"tensorboard": "tensorboard.summary.writer.event_file_writer"}.get(name, name)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(HoneError) as caught:
            open_trackers([f"{name}:my-project"], events=Events(tmp_path))
        assert caught.value.code == "C060" and caught.value.fix == f"pip install {name}"
    assert {"C060", "F026", "F061"} <= set(catalogue())


def test_other_ranks_track_nothing() -> None:
    assert open_trackers(["wandb"], events=Events(None)) == []


def test_flatten_names_settings_by_their_path() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": "x" * 900}) == {"a.b": "1", "a.c.d": "[1, 2]", "e": "x" * 250}


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = open_trackers(["tensorboard"], events=Events(tmp_path))
    tracker.start({})
    for step in (1, 2):
        tracker.metrics(step, {"loss": 1.0 / step})
    tracker.finish()
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(1, 1.0), (2, 0.5)]
    assert kept(tmp_path / "events.jsonl") == []
