"""Every rule speaks where it is broken, is silent where it is kept, and its change satisfies it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hone.core.errors import catalogue
from hone.plan.rules import RULES, Case, check

SETTINGS: dict[str, dict[str, Any]] = {
    "model": {"name": "org/model", "revision": None},
    "tuning": {"method": "lora", "rank": 16, "alpha": None, "dropout": 0.0, "targets": "all-linear", "rslora": False},
    "objective": {"name": "sft"},
    "data": {"held_out": 0.1, "max_length": 2048, "template": "auto", "learn": "assistant"},
    "optim": {"learning_rate": 2e-4, "batch_size": 16, "epochs": 2.0, "max_steps": None, "warmup_ratio": 0.05, "weight_decay": 0.0, "clip": 1.0},
    "eval": {"every": 100, "keep_best": False, "patience": None, "max_rows": 512},
    "output": {"save_every": 50},
    "hardware": {"dtype": "auto"},
}  # fmt: skip
SOUND = Case(
    SETTINGS, rows=900, held_out=120, steps=600, tokens=400_000, eval_tokens=50_000, longest=900, truncated=0.0, duplicates=0.0, hidden=4096,
    parameters=8_000_000_000, kind="instruct", has_template=True, vocabulary=frozenset({"<|im_start|>"}),
)  # fmt: skip


def with_(case: Case, *, facts: dict[str, Any] | None = None, **settings: Any) -> Case:
    """The case with other settings (section__name=value) and other facts."""
    changed = {name: dict(section) for name, section in case.settings.items()}
    for key, value in settings.items():
        section, _, name = key.partition("__")
        changed[section] = {**changed.get(section, {}), name: value}
    return replace(case, settings=changed, **facts or {})


GRPO = {"objective__name": "grpo", "optim__learning_rate": 5e-6}
BROKEN: dict[str, Case] = {
    "C101": with_(SOUND, optim__learning_rate=2e-3),
    "C102": with_(SOUND, optim__learning_rate=2e-5),
    "C103": with_(SOUND, tuning__method="full", tuning__rank=None, facts={"rows": 5000}, optim__learning_rate=2e-4),
    "C104": with_(SOUND, objective__name="dpo", optim__learning_rate=2e-4),
    "C105": with_(SOUND, optim__epochs=10.0),
    "C106": with_(SOUND, optim__epochs=0.2),
    "C107": with_(SOUND, tuning__alpha=4.0),
    "C108": with_(SOUND, tuning__rank=512),
    "C109": with_(SOUND, tuning__targets=("q_proj", "v_proj")),
    "C110": with_(SOUND, tuning__dropout=0.1, facts={"steps": 100}),
    "C111": with_(SOUND, optim__batch_size=256),
    "C112": with_(SOUND, optim__warmup_ratio=0.0),
    "C113": with_(SOUND, optim__weight_decay=0.5),
    "C114": with_(SOUND, optim__clip=None),
    "C115": with_(SOUND, facts={"steps": 12}),
    "C116": with_(SOUND, hardware__dtype="float16"),
    "C117": with_(SOUND, facts={"truncated": 0.2}),
    "C118": with_(SOUND, facts={"rows": 40}),
    "C119": with_(SOUND, facts={"kind": "base", "rows": 299}),
    "C120": with_(SOUND, facts={"rows": 1001}),
    "C121": with_(SOUND, data__held_out=0),
    "C122": with_(SOUND, eval__every=5),
    "C123": with_(SOUND, facts={"held_out": 20}),
    "C124": with_(SOUND, data__learn="all"),
    "C125": with_(SOUND, data__template="alpaca"),
    "C126": with_(SOUND, data__template="llama3", facts={"kind": "base"}),
    "C127": with_(SOUND, **GRPO, facts={"rows": 50}),
    "C128": with_(SOUND, **GRPO, facts={"steps": 60}),
    "C129": with_(SOUND, **GRPO, facts={"parameters": 500_000_000}),
    "C130": with_(SOUND, objective__name="cpt", facts={"kind": "base"}),
    "C131": with_(SOUND, objective__name="dpo", objective__beta=5.0, optim__learning_rate=5e-6),
    "C132": with_(SOUND, tuning__method="full", tuning__rank=None, optim__learning_rate=2e-5),
    "C133": with_(SOUND, facts={"duplicates": 0.3}),
    "C134": with_(SOUND, objective__name="cpt"),
    "C135": with_(SOUND, eval__keep_best=True, data__held_out=0),
    "C137": with_(SOUND, facts={"quantised": "standard 4-bit"}),
    "C138": with_(SOUND, **GRPO, rollout__group_size=2),
    "C139": with_(SOUND, output__save_every=600),
}


def test_every_rule_has_a_case_and_an_explanation() -> None:
    assert RULES.keys() == BROKEN.keys()
    for code, rule in RULES.items():
        assert rule.title and rule.source and catalogue()[code].zh, code


def test_a_sound_run_passes() -> None:
    assert check(SOUND) == []


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_rule_is_found_and_its_change_satisfies_it(code: str) -> None:
    case = BROKEN[code]
    found = {finding.code: finding for finding in check(case)}
    assert code in found
    change = found[code].change
    if change:
        mended = with_(case, **{key.replace(".", "__"): value for key, value in change.items()}, facts=_after(case, change))
        assert code not in [finding.code for finding in check(mended)], "the change does not satisfy the rule"


def _after(case: Case, change: dict[str, Any] | Any) -> dict[str, Any]:
    """What follows from a change: a longer limit cuts nothing, smaller batches make more steps."""
    facts: dict[str, Any] = {}
    if "data.max_length" in change:
        facts["truncated"] = 0.0
    if "optim.batch_size" in change and case.steps:
        facts["steps"] = case.steps * case["optim.batch_size"] // change["optim.batch_size"]
    if "optim.max_steps" in change:
        facts["steps"] = change["optim.max_steps"]
    return facts


@pytest.mark.parametrize(
    ("rows", "base", "instruct"),
    [(299, ["C119"], []), (300, [], []), (1000, [], []), (1001, [], ["C120"])],
)
def test_the_bounds_of_base_and_instruct(rows: int, base: list[str], instruct: list[str]) -> None:
    """Below 300 rows instruct, up to 1000 either, above 1000 base."""
    for kind, expected in (("base", base), ("instruct", instruct)):
        found = [finding.code for finding in check(with_(SOUND, facts={"rows": rows, "kind": kind}))]
        assert [code for code in found if code in ("C119", "C120")] == expected


def test_rates_follow_the_width_of_the_model() -> None:
    small = {"hidden": 256}
    assert check(with_(SOUND, optim__learning_rate=4e-3, facts=small)) == [], "what the 5 M seedling wants"
    assert [f.code for f in check(with_(SOUND, optim__learning_rate=2e-4, facts=small))] == ["C102"], "what 7B wants is slow there"


def test_errors_come_first() -> None:
    worst = with_(SOUND, eval__keep_best=True, data__held_out=0, optim__clip=None, optim__epochs=9.0)
    levels = [finding.level for finding in check(worst)]
    assert levels == sorted(levels, key=["error", "warning", "note"].index) and levels[0] == "error"


def test_what_is_not_known_is_not_judged() -> None:
    assert check(Case(SETTINGS)) == []
    assert check(Case({})) == []
