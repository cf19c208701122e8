"""Several runs in a row, each from where the one before ended; what is done is not done again, and a table tells what it brought."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.core.faults import fault_point
from hone.core.files import write_atomically
from hone.core.registry import nearest
from hone.recipe.build import Opened
from hone.recipe.opening import open_model
from hone.recipe.words import preset

Raw = dict[str, Any]
Train = Callable[[Raw], int]
"""Trains one stage, given its raw sections; returns the exit status."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a pipeline. `base` is the stage that it starts from, "" for the model that was given."""

    name: str
    method: str
    base: str = ""
    data: str = "data"
    """Which of the pipeline's data it learns from: data, preferences or prompts."""
    judge: str = ""
    """The stage whose model is the reward."""


PIPELINES: dict[str, tuple[Stage, ...]] = {
    "sft": (Stage("sft", "sft"),),
    "sft+dpo": (Stage("sft", "sft"), Stage("dpo", "dpo", base="sft", data="preferences")),
    "sft+rlhf": (
        Stage("sft", "sft"),
        Stage("rm", "rm", base="sft", data="preferences"),
        Stage("ppo", "ppo", base="sft", data="prompts", judge="rm"),
    ),
}
"""Name -> stages, in order. The reference of a later stage is the model that the stage before made."""
FILES = {"data": "examples of good answers", "preferences": "pairs of a better and a worse answer", "prompts": "prompts to answer"}


def folder_of(name: str, raw: Mapping[str, Any]) -> Path:
    """Where a pipeline's stages lie: as asked, or under runs/, named after model and pipeline."""
    asked = raw.get("output", {}).get("folder")
    return Path(asked) if asked else Path("runs") / f"{Path(str(raw['model']['name'])).name}-{name}"


def plan(name: str, raw: Mapping[str, Any]) -> list[tuple[Stage, Path, Raw]]:
    """The stages with their folders and raw sections.

    `raw` has the sections of a run, `preferences` and `prompts` beside them, and `stages: {NAME: sections}` for one stage alone.
    Raises C003 for an unknown pipeline and C068 where a stage has no data.
    """
    if name not in PIPELINES:
        raise HoneError("C003", f"no pipeline is called '{name}'", fix=nearest(name, PIPELINES))
    if not raw.get("model", {}).get("name"):
        raise HoneError("C068", "no model is named", where="model", fix="hone pipeline " + name + " model=... data=...")
    folder = folder_of(name, raw)
    places = {stage.name: folder / f"{number}-{stage.name}" for number, stage in enumerate(PIPELINES[name], start=1)}
    return [(stage, places[stage.name], _sections(stage, places, raw)) for stage in PIPELINES[name]]


def _sections(stage: Stage, places: Mapping[str, Path], raw: Mapping[str, Any]) -> Raw:
    shared = {key: value for key, value in raw.items() if key not in (*FILES, "stages", "output", "objective", "rollout")}
    made: Raw = _merged(preset(stage.method) or {"objective": {"name": stage.method}}, shared)
    made["output"] = {**raw.get("output", {}), "folder": str(places[stage.name])}
    if stage.base:
        made["model"] = {**made.get("model", {}), "name": str(places[stage.base]), "revision": None}
    made["data"] = {**_options(raw.get("data", {})), "train": _source(stage, raw)}
    if stage.judge:
        judge = {"name": "model", "run": str(places[stage.judge])}
        made["rollout"] = {**made.get("rollout", {}), "rewards": [judge]}
    return _merged(made, raw.get("stages", {}).get(stage.name, {}))


def _source(stage: Stage, raw: Mapping[str, Any]) -> Any:
    given = raw.get(stage.data)
    found = given.get("train") if isinstance(given, Mapping) else given
    if stage.data == "prompts" and not found:
        return _source(Stage(stage.name, stage.method), raw)
    if not found:
        what = f"the stage '{stage.name}' needs {FILES[stage.data]}"
        raise HoneError("C068", what, where=stage.data, fix=f"{stage.data}=FILE")
    return found


def _options(data: Any) -> Raw:
    """What holds for the data of every stage."""
    return {key: value for key, value in data.items() if key != "train"} if isinstance(data, Mapping) else {}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Raw:
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = _merged(found[key], value) if both else value
    return found


def finished(folder: Path) -> bool:
    """Whether a stage's run has come to its end and written what it learned."""
    events = folder / "events.jsonl"
    kinds = [json.loads(line)["kind"] for line in events.read_text("utf-8").splitlines() if line.endswith("}")] if events.is_file() else []
    return "finished" in kinds and any((folder / name).is_dir() for name in ("adapter", "model"))


def run(name: str, raw: Mapping[str, Any], train: Train, *, note: Callable[[str], None]) -> int:
    """Run the stages that are not finished. Returns the status of the first that stops early, or 0."""
    stages = plan(name, raw)
    for stage, folder, sections in stages:
        fault_point("stage")
        if finished(folder):
            note(f"{stage.name}: done already, in {folder}")
        else:
            note(f"{stage.name}: {folder}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            status = train(sections)
            if status:
                return status
    return 0


def table(name: str, raw: Mapping[str, Any], measure: Callable[[Opened], Mapping[str, float]]) -> list[dict[str, Any]]:
    """A row for the base and one for each stage that makes a model which talks, with what `measure` says; also in table.json."""
    stages = [(stage, folder) for stage, folder, _ in plan(name, raw) if stage.method != "rm"]
    rows = [{"model": "base", **measure(open_model(str(raw["model"]["name"])))}]
    said = ""
    for stage, folder in stages:
        said = f"{said} + {stage.name.upper()}".removeprefix(" + ")
        rows.append({"model": said, **measure(open_model(folder))})
    write_atomically(folder_of(name, raw) / "table.json", json.dumps(rows, indent=1))
    return rows


__all__ = ["PIPELINES", "Stage", "finished", "folder_of", "plan", "run", "table"]
