"""Settings that would do nothing beside the others. Who writes one expects something of it, so it is refused, with what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hone.core.errors import HoneError


@dataclass(frozen=True, slots=True)
class Asked:
    """A run's settings with all their defaults, and what its objective asks for."""

    settings: Mapping[str, Any]
    signals: Collection[str]
    shape: str

    def __getitem__(self, key: str) -> Any:
        """A setting by its dotted name; None where there is no such section."""
        found: Any = self.settings
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found

    @property
    def credit(self) -> str:
        named = self["rollout.credit"]
        return str(named.get("name", "centred") if isinstance(named, Mapping) else named)

    @property
    def noted(self) -> bool:
        """Whether a second model is asked about sequences that are known before the run."""
        return "rollout" not in self.settings and bool({"ref_logp", "divergence"} & set(self.signals))


class Need(NamedTuple):
    """A setting, what it does nothing without, and whether that is there."""

    key: str
    what: str
    met: Callable[[Asked], bool]


NEEDS = (
    Need("model.teacher", "an objective that learns from a teacher (distill, uld)", lambda run: "divergence" in run.signals),
    Need("hardware.signals", "rows that are there before the run, and an objective that asks another model", lambda run: run.noted),
    Need("eval.max_new_tokens", "prompts to answer at each evaluation, eval.samples", lambda run: bool(run["eval.samples"])),
    Need("data.learn", "answers whose words are learned", lambda run: run.shape not in ("class", "number", "steps")),
    Need("rollout.turns", "a world that answers back, rollout.environment", lambda run: run["rollout.environment"] is not None),
    Need("rollout.kl", "a credit that looks at rewards", lambda run: run.credit != "keep"),
    Need("rollout.timeout", "someone who judges, rollout.rewards", lambda run: bool(run["rollout.rewards"])),
    Need("rollout.on_error", "someone who judges, rollout.rewards", lambda run: bool(run["rollout.rewards"])),
    *(
        Need(f"rollout.sampling.{name}", "answers that are drawn, rollout.sampling.temperature above 0", lambda run: bool(_warmth(run)))
        for name in ("top_p", "top_k", "min_p")
    ),
)


def _warmth(run: Asked) -> Any:
    return run["rollout.sampling.temperature"]


def refuse_idle(run: Asked, classes: Mapping[str, type]) -> None:
    """Raise C071 for the first setting that is not as its class has it, and would do nothing. `classes` are those of the sections."""
    for need in idle(run, classes):
        what = f"{need.key}={run[need.key]} would do nothing here: it needs {need.what}"
        raise HoneError("C071", what, where=need.key, fix=f"leave {need.key} out, or set what it needs")


def idle(run: Asked, classes: Mapping[str, type]) -> Iterator[Need]:
    """All settings that would do nothing."""
    for need in NEEDS:
        section, _, name = need.key.rpartition(".")
        if section in classes and run[section] is not None and run[need.key] != default_of(classes[section], name) and not need.met(run):
            yield need


def default_of(cls: type, name: str) -> Any:
    """What a settings class has where nothing is said."""
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)


def check_watched(settings: Mapping[str, Any]) -> None:
    """C135 for settings that decide by a held-out loss which nobody measures."""
    watching = [f"eval.{name}" for name in ("keep_best", "patience") if settings["eval"][name]]
    if watching and settings["data"]["held_out"] == 0:
        what = f"{watching[0]} watches the held-out loss, and nothing is held out"
        raise HoneError("C135", what, where=f"{watching[0]}, data.held_out", fix=f"data.held_out=0.1, or leave {watching[0]} out")
