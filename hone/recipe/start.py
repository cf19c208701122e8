"""Where a run starts from: a model as it is, or what an earlier run or an adapter made of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.core.files import sha256_of, staged_folder, write_atomically
from hone.core.world import World
from hone.plan.shapes import read_json
from hone.recipe.written import resolved_of, settings_in

ADAPTER = "adapter_config.json"
MERGED = "merged"
RECORD = "merged_from.json"
"""Beside merged weights: the hash of the adapter that is in them."""
HEADS = ("score", "step_score")
"""Signals whose head is what their run was for."""


def base_of(name: str) -> str:
    """The model whose shapes and tokens a name has: for runs and adapters the one they were trained on, however many came between."""
    folder = Path(name)
    if (folder / "resolved.json").is_file():
        inside = folder / "model"
        return str(inside) if inside.is_dir() else base_of(resolved_of(folder)["model"]["name"])
    if (folder / ADAPTER).is_file():
        return base_of(str(read_json(folder / ADAPTER).get("base_model_name_or_path") or name))
    return name


def started(raw: Mapping[str, Any], world: World) -> Mapping[str, Any]:
    """The same settings, where the model is a run or an adapter with that model as plain weights in its place.

    So what the reference says, and what a new adapter is added to, is the policy that the earlier run ended with. The weights are made
    once, in `merged/` of that folder. Raises F007 for a run that has not finished, C170 for one that made a judge.
    """
    name = str(dict(raw.get("model") or {}).get("name", ""))
    folder = Path(name)
    if (folder / "resolved.json").is_file():
        _check(folder)
    elif not (folder / ADAPTER).is_file():
        return raw
    plain = folder / "model"
    if not plain.is_dir():
        if world.main:
            merge(folder)
        world.any(False)  # the others wait until it is there
        plain = folder / MERGED
    return {**raw, "model": {**raw["model"], "name": str(plain), "revision": None}}


def merge(folder: Path) -> Path:
    """The model that a run or an adapter made, as plain weights in `merged/`; made again where the adapter has changed since."""
    from hone.recipe.opening import open_model

    place, weights = folder / MERGED, _adapter(folder) / "adapter_model.safetensors"
    found = sha256_of(weights) if weights.is_file() else ""
    if (place / RECORD).is_file() and read_json(place / RECORD)["adapter"] == found:
        return place
    opened = open_model(folder)
    opened.policy.tuning.merge(opened.policy.model)
    with staged_folder(place) as stage:
        opened.policy.model.save_pretrained(stage)  # type: ignore[operator]
        opened.tokenizer.chat_template = opened.template.source
        opened.tokenizer.save_pretrained(stage)
        write_atomically(stage / RECORD, json.dumps({"adapter": found}))
    return place


def _adapter(folder: Path) -> Path:
    return folder if (folder / ADAPTER).is_file() else folder / "adapter"


def _check(run: Path) -> None:
    from hone.recipe.settings import resolve

    if not any((run / name).is_dir() for name in ("model", "adapter")):
        fix = "finish it: run the same `hone train` command again"
        raise HoneError("F007", "this run has not written a model yet", where=str(run), fix=fix)
    told = settings_in(run)
    objective = resolve(told).objective
    if any(name in objective.needs for name in HEADS):
        what = f"'{run}' made a judge ({objective.name}), whose head a new run would leave behind"
        raise HoneError("C170", what, where="model.name", fix=f"start from what it started from: model={told['model']['name']}")
