"""A run file's eight sections: listed here, defined where they are used. Raw sections become one recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.data.settings import DataSettings
from hone.models.settings import HardwareSettings, ModelSettings
from hone.objectives import OBJECTIVES, Objective
from hone.recipe.words import ALIASES
from hone.train.settings import EvalSettings, OptimSettings, OutputSettings
from hone.tuning import METHODS, Tuning

PLAIN: dict[str, type] = {
    "model": ModelSettings,
    "data": DataSettings,
    "optim": OptimSettings,
    "eval": EvalSettings,
    "output": OutputSettings,
    "hardware": HardwareSettings,
}
SECTIONS = (*PLAIN, "tuning", "objective", "seed")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole run, validated."""

    model: ModelSettings
    tuning: Tuning
    data: DataSettings
    objective: Objective
    optim: OptimSettings
    eval: EvalSettings
    output: OutputSettings
    hardware: HardwareSettings
    seed: int
    resolved: dict[str, Any]
    """The same as plain JSON, with every default filled in."""


def resolve(raw: Mapping[str, Any]) -> Recipe:
    """Validate raw sections and fill in the defaults. Raises C001 ... C006 before anything is downloaded or loaded."""
    for section in raw:
        if section not in SECTIONS:
            raise HoneError("C002", f"there is no section '{section}'", where=section, fix=nearest(section, (*SECTIONS, *ALIASES)))
    plain: dict[str, Any] = {name: parse(cls, raw.get(name, {}), section=name) for name, cls in PLAIN.items()}
    method, tuning = _tagged(raw.get("tuning", {}), "method", "lora")
    name, objective = _tagged(raw.get("objective", {}), "name", "sft")
    tuned = parse(METHODS[method], tuning, section=f"tuning ({method})")
    bound = OBJECTIVES[name].bind(**objective)
    if plain["optim"].epochs is not None and plain["optim"].max_steps is not None:
        raise HoneError("C004", "optim.epochs and optim.max_steps contradict each other", where="optim", fix="keep one of the two")
    seed = parse(_Seed, {"seed": raw.get("seed", 42)}, section="seed").seed
    resolved = {key: _json(dataclasses.asdict(value)) for key, value in plain.items()}
    resolved["tuning"] = {"method": method} | _json(dataclasses.asdict(tuned))  # type: ignore[call-overload]
    resolved["objective"] = {"name": name} | _json(dataclasses.asdict(parse(OBJECTIVES[name].settings(), objective, section="objective")))
    resolved["seed"] = seed
    return Recipe(tuning=tuned, objective=bound, seed=seed, resolved=resolved, **plain)


@dataclass(frozen=True)
class _Seed:
    seed: int


def _tagged(values: Mapping[str, Any], tag: str, default: str) -> tuple[str, dict[str, Any]]:
    rest = dict(values)
    return str(rest.pop(tag, default)), rest


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else {k: _json(v) for k, v in value.items()} if isinstance(value, dict) else value
