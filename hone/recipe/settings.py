"""A run file's eight sections: listed here, defined where they are used. Raw sections become one recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Lt

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.data.settings import DataSettings
from hone.models.settings import HardwareSettings, ModelSettings
from hone.objectives import Objective
from hone.objectives.outside import find
from hone.recipe.idle import Asked, refuse_idle
from hone.recipe.words import ALIASES
from hone.rollout.credit import CREDITS
from hone.rollout.settings import Drawing, RolloutSettings
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
CLASSES = {**PLAIN, "rollout": RolloutSettings, "rollout.sampling": Drawing}
SECTIONS = (*PLAIN, "tuning", "objective", "rollout", "seed")
IDLE = ("format", "columns", "learn", "overflow", "shuffle", "skip_bad")
"""Settings of `data` that mean nothing where the model writes the answers itself."""


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
    rollout: RolloutSettings | None
    """Given where the model writes what it learns from; its prompts are then `data.train`."""
    seed: int
    resolved: dict[str, Any]
    """The same as plain JSON, with every default filled in."""

    @property
    def refers(self) -> bool:
        """Whether what the model was is asked about what it learns from."""
        return "ref_logp" in self.objective.needs or bool(self.rollout and self.rollout.kl)

    @property
    def copies(self) -> bool:
        """Whether a second copy of the model is held for that: asked live, of a method that moves the base itself."""
        live = self.rollout is not None or self.hardware.signals == "live"
        return self.refers and live and self.tuning.about.artifact == "model"


def resolve(raw: Mapping[str, Any]) -> Recipe:
    """Validate raw sections and fill in the defaults. Raises C001 ... C006, and C071 for what would do nothing."""
    for section in raw:
        if section not in SECTIONS:
            raise HoneError("C002", f"there is no section '{section}'", where=section, fix=_section_like(section))
        if section != "seed" and not isinstance(raw[section], Mapping):
            what = f"'{section}' is a section of settings, not {raw[section]!r}"
            raise HoneError("C001", what, where=section, fix=f"set one of them, {section}.NAME=...; `hone explain {section}` lists them")
    raw, rollout = _online(raw)
    plain: dict[str, Any] = {name: parse(cls, raw.get(name, {}), section=name) for name, cls in PLAIN.items()}
    method, tuning = _tagged(raw.get("tuning", {}), "method", "auto")
    method = "lora" if method == "auto" else method  # on which base, the machine decides: `hone.recipe.quantised`
    name, objective = _tagged(raw.get("objective", {}), "name", "sft")
    tuned = parse(METHODS[method], tuning, section=f"tuning ({method})")
    bound = find(name).bind(**objective)
    if plain["optim"].epochs is not None and plain["optim"].max_steps is not None:
        raise HoneError("C004", "optim.epochs and optim.max_steps contradict each other", where="optim", fix="keep one of the two")
    _check_online(bound, rollout, plain["data"])
    _check_base(plain["model"], method, tuned)
    seed = parse(_Seed, {"seed": raw.get("seed", 42)}, section="seed").seed
    resolved = {key: _json(dataclasses.asdict(value)) for key, value in plain.items()}
    resolved["tuning"] = {"method": method} | _json(dataclasses.asdict(tuned))  # type: ignore[call-overload]
    resolved["objective"] = {"name": name} | _json(bound.full)
    if rollout is not None:
        resolved["rollout"] = _json(dataclasses.asdict(rollout))
    resolved["seed"] = seed
    refuse_idle(Asked(resolved, bound.needs, bound.data), CLASSES)
    return Recipe(tuning=tuned, objective=bound, rollout=rollout, seed=seed, resolved=resolved, **plain)


def _online(raw: Mapping[str, Any]) -> tuple[dict[str, Any], RolloutSettings | None]:
    """Where there is a rollout, its prompts are the data. Raises C069 for settings that would do nothing, or two sets of prompts."""
    if "rollout" not in raw:
        return dict(raw), None
    rollout: RolloutSettings = parse(RolloutSettings, raw["rollout"], section="rollout")
    defaults, data = {f.name: f for f in dataclasses.fields(DataSettings)}, dict(raw.get("data", {}))
    for name in IDLE:
        default = defaults[name].default if defaults[name].default is not dataclasses.MISSING else {}
        if data.get(name, default) != default:
            what = f"data.{name} does nothing here: the model writes the answers itself"
            raise HoneError("C069", what, where=f"data.{name}", fix="leave it out")
    if rollout.prompts is not None and data.setdefault("train", rollout.prompts) != rollout.prompts:
        raise HoneError("C069", "data.train and rollout.prompts name different prompts", where="rollout.prompts", fix="keep one of the two")
    return {**raw, "data": data}, rollout


def _check_base(model: ModelSettings, method: str, tuning: Tuning) -> None:
    """Quantised weights cannot move: C100 for a method that would move them, C136 for a setting that would do nothing."""
    if model.quantise != "none" and tuning.about.artifact == "model":
        what = f"tuning.method={method} moves the base's own weights, and model.quantise={model.quantise} keeps them in {model.scheme}"
        fix = "keep tuning.method, with model.quantise=none | keep model.quantise, with tuning.method=lora"
        raise HoneError("C100", what, where="tuning.method, model.quantise", fix=fix)
    if model.double_quant is not None and model.quantise not in ("nf4", "fp4"):
        what = f"model.double_quant is about 4-bit weights, and model.quantise is {model.quantise}: it would do nothing"
        raise HoneError("C136", what, where="model.double_quant, model.quantise", fix="leave it out, or set model.quantise=nf4")


def _check_online(objective: Objective, rollout: RolloutSettings | None, data: DataSettings) -> None:
    """C061 where an objective and where its sequences come from do not go together, C069 for weights of files with prompts."""
    written = "old_logp_N" in objective.facts.split()
    if written and rollout is None:
        fix = "give prompts and rewards: rollout.prompts=FILE rollout.rewards=number"
        raise HoneError("C061", f"'{objective.name}' learns from what the model writes itself", where="rollout", fix=fix)
    if rollout is None:
        return
    if any(source.weight != 1 for source in data.sources):
        what = "the weight of a source does nothing here: each prompt is asked once in a pass"
        raise HoneError("C069", what, where="data.train", fix="leave weights out, or write a prompt as often as it shall be asked")
    scheme = rollout.scheme
    if not rollout.wanted and rollout.environment is None and scheme.name not in ("keep",):
        fix = "name one: rollout.rewards=number (see `hone list rewards`)"
        raise HoneError("C061", "nobody judges the answers", where="rollout.rewards", fix=fix)
    wants = "advantage" if written else objective.data
    if wants != scheme.gives:
        fix = f"choose a credit that does: {', '.join(name for name, one in CREDITS.items() if one.gives == wants) or 'none'}"
        what = f"the credit '{scheme.name}' does not give what '{objective.name}' learns from"
        raise HoneError("C061", what, where="rollout.credit", fix=fix)


@dataclass(frozen=True)
class _Seed:
    seed: Annotated[int, Ge(0), Lt(2**63)]


def _section_like(name: str) -> str:
    """The section, or the name that other tools have for a setting, that was meant."""
    hint = nearest(name, (*SECTIONS, *ALIASES))
    return hint if hint.startswith("did you mean") else f"known: {', '.join(SECTIONS)}"


def _tagged(values: Mapping[str, Any], tag: str, default: str) -> tuple[str, dict[str, Any]]:
    rest = dict(values)
    return str(rest.pop(tag, default)), rest


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else {k: _json(v) for k, v in value.items()} if isinstance(value, dict) else value
