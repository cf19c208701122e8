"""A run as the rules see it: its settings, and what its data and its model say where they can be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hone.core.errors import HoneError
from hone.plan.faults import check_model
from hone.plan.hardware import hardware
from hone.plan.kinds import base_or_instruct, has_template
from hone.plan.machines import here
from hone.plan.rules import Case, Finding, check
from hone.recipe.forecast import Forecast, Wish, forecast, model_folder, sections


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules say of a run, and what could not be looked at."""

    case: Case
    findings: tuple[Finding, ...]
    unseen: str = ""


def judge(raw: Mapping[str, Any]) -> Judgement:
    """Every rule on a run. Faults of the settings themselves (C001 ...) are raised; a model or data that cannot be read is told."""
    settings = sections(raw)[0]
    case, faults, unseen = Case(settings), list[Finding](), ""
    try:
        found = forecast(raw, Wish(here(hardware("."), str(settings["hardware"]["device"]))))
        case = case_of(found, given=settings)
        case = _of_model(case)
        faults = _of_files(str(case["model.name"]), case["model.revision"])
    except HoneError as fault:
        if fault.code[0] in "CS":
            raise
        unseen = str(fault)
    findings = check(case)
    graver = sum(finding.level == "error" for finding in findings)
    return Judgement(case, (*findings[:graver], *faults, *findings[graver:]), unseen)


def case_of(found: Forecast, *, given: Mapping[str, Any]) -> Case:
    """What a forecast knows; rates and passes that the adviser chose itself are judged as well."""
    return Case(
        settings=found.settings,
        rows=found.tokens.rows,
        held_out=found.tokens.held_out,
        steps=found.steps,
        tokens=found.tokens.tokens,
        eval_tokens=sum(found.tokens.eval_sizes[: given["eval"]["max_rows"]]),
        longest=found.tokens.longest,
        truncated=found.tokens.truncated,
        duplicates=found.tokens.duplicates,
        hidden=found.facts.hidden,
        parameters=found.facts.parameters,
        quantised=found.facts.quantised,
    )


def _of_model(case: Case) -> Case:
    name = str(case["model.name"])
    folder = model_folder(name, case["model.revision"])
    template = has_template(folder)
    return replace(case, has_template=template, kind=base_or_instruct(name, template)[0], vocabulary=_controls(folder))


def _of_files(name: str, revision: str | None) -> list[Finding]:
    """Faults of the model's tokenizer, template and generation settings."""
    source = f"hone model check {name} --fix FOLDER"
    return [Finding(fault.code, "warning", fault.what, {}, source) for fault in check_model(model_folder(name, revision))]


def _controls(folder: Any) -> frozenset[str]:
    from hone.data.light import light_tokenizer

    found = light_tokenizer(folder)
    return frozenset() if isinstance(found, str) else frozenset(str(token.content) for token in found.added_tokens_decoder.values())


def mended(raw: Mapping[str, Any], findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The run with the changes of all findings; where two name one setting, the graver comes first and stays."""
    changed: dict[str, Any] = {name: dict(value) if isinstance(value, Mapping) else value for name, value in raw.items()}
    done: set[str] = set()
    for finding in findings:
        for key, value in finding.change.items():
            if key not in done:
                section, _, name = key.partition(".")
                changed[section] = {**changed.get(section, {}), name: value}
                done.add(key)
    return changed
