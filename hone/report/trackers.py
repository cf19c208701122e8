"""Other people's trackers, fed from our own log. They may fail; training and the local log never do because of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from hone.core.errors import HoneError
from hone.core.events import Events
from hone.core.registry import Registry
from hone.report.folder import plain
from hone.report.numbers import finite


class Tracker(Protocol):
    """A place that shows runs. Every method may raise: the caller is `Guarded`."""

    def start(self, settings: Mapping[str, Any]) -> None:
        """Open the run with its resolved settings."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Take the finite numbers of one step."""

    def finish(self) -> None:
        """Close the run."""


TRACKERS: Registry[Callable[[Path, str], Tracker]] = Registry("tracker")
"""Name to a factory that takes the run folder and the project's name. Raises C060 if the package is missing."""


class Guarded:
    """A tracker that is switched off, with one warning event, as soon as it raises (fault F26)."""

    def __init__(self, name: str, tracker: Tracker, events: Events) -> None:
        self.name, self.events = name, events
        self.tracker: Tracker | None = tracker

    def start(self, settings: Mapping[str, Any]) -> None:
        self._try(lambda tracker: tracker.start(settings))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        numbers = {name: number for name, value in values.items() if (number := finite(value)) is not None}
        self._try(lambda tracker: tracker.metrics(step, numbers))

    def finish(self) -> None:
        self._try(lambda tracker: tracker.finish())

    def _try(self, act: Callable[[Tracker], None]) -> None:
        if self.tracker is None:
            return
        try:
            act(self.tracker)
        except Exception as error:
            self.tracker = None
            what = f"the tracker {self.name} failed and is switched off for this run; the local log is complete"
            self.events.emit("warning", code="F026", what=what, error=f"{type(error).__name__}: {error}"[:500])


def check_trackers(names: Iterable[str]) -> None:
    """Raise C003 for an unknown name and C060 for a package that is not installed, before anything is loaded."""
    for name in names:
        kind = name.partition(":")[0]
        if TRACKERS[kind].__module__ == __name__ and find_spec(kind) is None:  # ours are called as their packages
            raise _missing(kind)


def open_trackers(names: Iterable[str], *, events: Events) -> list[Guarded]:
    """One guarded tracker a name, written `wandb` or `wandb:project`; none where events have no folder (other ranks).

    Raises C003 for an unknown name and C060, with the command to type, for a package that is not installed.
    """
    if events.folder is None:
        return []
    parts = [(name, *name.partition(":")[::2]) for name in names]
    return [Guarded(name, TRACKERS[kind](events.folder, project or "hone"), events) for name, kind, project in parts]


@TRACKERS.add("tensorboard")
class TensorBoard:
    """Event files in the run folder; `tensorboard --logdir RUN` shows them. Needs neither torch nor TensorFlow."""

    def __init__(self, folder: Path, project: str) -> None:
        self.writer = _package("tensorboard.summary.writer.event_file_writer", "tensorboard").EventFileWriter(str(folder / "tensorboard"))
        self.protocol = import_module("tensorboard.compat.proto.event_pb2")
        self.summary = import_module("tensorboard.compat.proto.summary_pb2").Summary

    def start(self, settings: Mapping[str, Any]) -> None:
        """The settings stay in resolved.json, beside the event files."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        numbers = [self.summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self.writer.add_event(self.protocol.Event(wall_time=time.time(), step=step, summary=self.summary(value=numbers)))

    def finish(self) -> None:
        self.writer.close()


@TRACKERS.add("wandb")
class Wandb:
    """Weights & Biases; its own WANDB_* environment variables (mode, entity, key) hold."""

    def __init__(self, folder: Path, project: str) -> None:
        self.wandb, self.folder, self.project = _package("wandb", "wandb"), folder, project
        self.run: Any = None

    def start(self, settings: Mapping[str, Any]) -> None:
        self.run = self.wandb.init(project=self.project, name=self.folder.resolve().name, dir=str(self.folder), config=dict(settings))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def finish(self) -> None:
        self.run.finish()


@TRACKERS.add("trackio")
class Trackio:
    """Trackio; a resumed run goes on under the same name."""

    def __init__(self, folder: Path, project: str) -> None:
        self.trackio, self.name, self.project = _package("trackio", "trackio"), folder.resolve().name, project

    def start(self, settings: Mapping[str, Any]) -> None:
        self.trackio.init(project=self.project, name=self.name, config=dict(settings), resume="allow")

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.trackio.log(dict(values), step=step)

    def finish(self) -> None:
        self.trackio.finish()


@TRACKERS.add("mlflow")
class Mlflow:
    """MLflow; MLFLOW_TRACKING_URI says where. The project is the experiment."""

    def __init__(self, folder: Path, project: str) -> None:
        self.mlflow, self.name, self.project = _package("mlflow", "mlflow"), folder.resolve().name, project

    def start(self, settings: Mapping[str, Any]) -> None:
        self.mlflow.set_experiment(self.project)
        self.mlflow.start_run(run_name=self.name)
        flat = list(flatten(settings).items())
        for first in range(0, len(flat), 100):  # the server refuses more than 100 parameters in one request
            self.mlflow.log_params(dict(flat[first : first + 100]))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def finish(self) -> None:
        self.mlflow.end_run()


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and short texts."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: plain(value)[:250]}
    return flat


def _package(module: str, pip: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise _missing(pip) from None


def _missing(pip: str) -> HoneError:
    what = f"the tracker '{pip}' needs a package that is not installed"
    return HoneError("C060", what, where="output.trackers", fix=f"pip install {pip}")
