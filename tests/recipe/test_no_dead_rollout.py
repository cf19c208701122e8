"""No accepted option of a rollout is dead: each field, and each setting of each credit, changes what is written, judged or taught, or is
refused. So is every setting elsewhere that only acts beside another one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from rich.console import Console

from hone.core.errors import HoneError
from hone.core.types import Sequence
from hone.recipe.feed import feed
from hone.recipe.idle import NEEDS, Asked, idle
from hone.recipe.run import Run, prepare_run
from hone.recipe.settings import CLASSES, resolve
from hone.recipe.words import read
from hone.rollout.credit import CREDITS, Outcome
from hone.rollout.settings import Drawing, RolloutSettings
from hone.train.engine import Engine

OWN = """
from hone.core.types import Message
from hone.rollout.env import Reply


class Echo:
    tools = ()

    def reset(self, prompt):
        return prompt.conversation

    def step(self, said):
        return Reply((Message("user", "Again?"),), {"said": 1.0}, done=False)
"""
FIELDS: dict[str, Any] = {
    "prompts": "OTHER", "rewards": "number", "group_size": 3, "credit": "leave_one_out", "kl": 0.5, "passes": 2, "parts": 2,
    "environment": "OWN:Echo", "engine": "vllm", "rounds": 2, "cut": ["mask", "drop"], "ahead": 1,
    "sampling.max_new_tokens": 3, "sampling.temperature": 0.3, "sampling.top_p": 0.2, "sampling.top_k": 2, "sampling.min_p": 0.9,
    "sampling.stop_strings": "[a, e]",
}  # fmt: skip
"""Field of a rollout -> another value, or several."""
BESIDE = {"rounds": ("rollout.rewards=number",)}
ELSEWHERE = {
    "timeout": "tests/rollout/rewards/test_panel.py",
    "on_error": "tests/rollout/rewards/test_panel.py",
    "turns": "tests/rollout/test_env.py",
    "sampling": "its fields are above",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions, others, and judges of our own."""
    folder = tmp_path_factory.mktemp("rollout")
    for name, start in (("prompts", 0), ("other", 50)):
        rows = [{"prompt": f"How many are {i} and {i + 3}?", "answer": str(2 * i + 3)} for i in range(start, start + 12)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.py").write_text(OWN)
    return folder


def words(place: Path, model: Path, *more: str) -> list[str]:
    plain = {
        "model": model, "rollout.prompts": place / "prompts.jsonl", "rollout.rewards": "[{name: contains, text: e}]", "rollout.group_size": 2,
        "rollout.sampling.max_new_tokens": 6, "optim.batch_size": 2, "optim.max_steps": 4, "tuning.rank": 2, "hardware.threads": 1,
        "hardware.dtype": "float32", "data.held_out": 0,
    }  # fmt: skip
    named = {word.partition("=")[0] for word in more}
    return [*(f"{key}={value}" for key, value in plain.items() if key not in named), *more]


Plain = dict[tuple[str, ...], Any]


@pytest.fixture(scope="module")
def plain() -> Plain:
    """What runs write whose field is as it is, by the words that it needs beside it."""
    return {}


@pytest.fixture(scope="module")
def started(model_folder: Path, place: Path) -> Run:
    """The run as it is, away from its start, where the reference would say what the policy says."""
    run = prepare_run(read("grpo", words(place, model_folder))[0], Console(quiet=True))
    generator = torch.Generator().manual_seed(1)
    for parameter in run.policy.trainable().values():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return run


def what_it_writes(run: Run, asked: list[str]) -> Any:
    """The first steps of a rollout and what is kept of them; a refusal is its code."""
    try:
        recipe = resolve(read("grpo", asked)[0])
        if recipe.data != run.recipe.data or (recipe.rollout is not None and recipe.rollout.engine != "hone"):
            run = prepare_run(recipe.resolved, Console(quiet=True))
        run = replace(run, recipe=replace(recipe, hardware=run.recipe.hardware, tuning=run.recipe.tuning))
        source = feed(run, Engine(run.policy, replace(recipe.optim, learning_rate=1e-3))).source
        steps = list(islice(source.steps(), 2))
    except HoneError as fault:
        return fault.code
    batches = [batch for step in steps for batch in step]
    said = [(batch.tokens_T.tolist(), batch.weight_N.tolist(), batch.facts["advantage"].tolist()) for batch in batches]
    return said, sorted(source.metrics), sorted(source.state())  # type: ignore[attr-defined]


CASES = [(name, value) for name, values in FIELDS.items() for value in (values if isinstance(values, list) else [values])]


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_field_of_the_rollout_acts_or_is_refused(
    name: str, value: Any, started: Run, plain: Plain, model_folder: Path, place: Path
) -> None:
    own = str(place / "own.py")
    needed = tuple(word.replace("OWN", own) for word in BESIDE.get(name, ()))
    given = str(value).replace("OWN", own).replace("OTHER", str(place / "other.jsonl"))
    if needed not in plain:
        plain[needed] = what_it_writes(started, words(place, model_folder, *needed))
    assert what_it_writes(started, words(place, model_folder, *needed, f"rollout.{name}={given}")) != plain[needed]


def test_every_field_of_a_rollout_is_in_a_net() -> None:
    every = {field.name for field in dataclasses.fields(RolloutSettings)} | {f"sampling.{f.name}" for f in dataclasses.fields(Drawing)}
    assert every == {*FIELDS, *ELSEWHERE}


def credited() -> list[tuple[str, str, Any]]:
    """Every setting of every credit with every other choice."""
    found: list[tuple[str, str, Any]] = []
    for name, scheme in CREDITS.items():
        for field in dataclasses.fields(scheme.settings()):
            choices = get_args(field.type) if get_origin(field.type) is Literal else ()
            others = [not field.default] if isinstance(field.default, bool) else [one for one in choices if one != field.default] or [0.3]
            found += [(name, field.name, other) for other in others]
    return found


@pytest.mark.parametrize(("name", "setting", "value"), credited())
def test_a_setting_of_a_credit_acts(name: str, setting: str, value: Any) -> None:
    def taught(**settings: Any) -> Any:
        rewards = [[0.1, 0.9, 0.4], [0.2, 0.25, 0.0]]
        judged = [[_outcome(reward, 3 + i) for i, reward in enumerate(group)] for group in rewards]
        return [[(one.facts, one.tokens) for one in group] for group in CREDITS[name].bind(settings)(judged)]

    assert taught(**{setting: value}) != taught()


def _outcome(reward: float, length: int) -> Outcome:
    sequence = Sequence([7] * (2 + length), [0.0] * 2 + [1.0] * length)
    return Outcome(sequence, reward, penalties=[0.01 * i for i in range(length)], values=[0.1 * i for i in range(length)])


IDLE: dict[str, tuple[str, list[str]]] = {
    "model.teacher": ("sft", ["model.teacher=somebody"]),
    "hardware.signals": ("sft", ["hardware.signals=cached"]),
    "eval.max_new_tokens": ("sft", ["eval.max_new_tokens=9"]),
    "data.learn": ("classifier", ["data.learn=last"]),
    "rollout.turns": ("grpo", ["rollout.turns=3"]),
    "rollout.kl": ("gkd", ["rollout.kl=0.1"]),
    "rollout.timeout": ("gkd", ["rollout.timeout=3"]),
    "rollout.on_error": ("gkd", ["rollout.on_error=drop"]),
    "rollout.sampling.top_p": ("grpo", ["rollout.sampling.temperature=0", "rollout.sampling.top_p=0.5"]),
    "rollout.sampling.top_k": ("grpo", ["rollout.sampling.temperature=0", "rollout.sampling.top_k=5"]),
    "rollout.sampling.min_p": ("grpo", ["rollout.sampling.temperature=0", "rollout.sampling.min_p=0.5"]),
}
"""Settings that act beside another one only, each without it."""


@pytest.mark.parametrize("key", IDLE)
def test_what_would_do_nothing_is_refused_with_what_it_needs(key: str) -> None:
    source, more = IDLE[key]
    common = ["model=a/b", "data=rows.jsonl"] if source in ("sft", "classifier") else ["model=a/b", "rollout.prompts=rows.jsonl"]
    common += ["model.teacher=c/d"] if source == "gkd" else ["rollout.rewards=number"] if source == "grpo" else []
    resolve(read(source, common)[0])
    with pytest.raises(HoneError) as caught:
        resolve(read(source, [*common, *more])[0])
    assert caught.value.code == "C071" and caught.value.where == key and "it needs" in caught.value.what


def test_the_list_of_what_needs_something_names_real_settings_and_all_are_tested() -> None:
    assert {need.key for need in NEEDS} == IDLE.keys()
    for need in NEEDS:
        section, _, name = need.key.rpartition(".")
        assert name in {field.name for field in dataclasses.fields(CLASSES[section])}


def test_defaults_need_nothing() -> None:
    for source, common in (
        ("sft", ["data=rows.jsonl"]),
        ("dpo", ["data=rows.jsonl"]),
        ("grpo", ["rollout.prompts=p", "rollout.rewards=number"]),
    ):
        recipe = resolve(read(source, ["model=a/b", *common])[0])
        settings: Mapping[str, Any] = recipe.resolved
        assert list(idle(Asked(settings, recipe.objective.needs, recipe.objective.data), CLASSES)) == []


def test_watching_a_loss_that_nobody_measures_is_refused(model_folder: Path, data_file: Path) -> None:
    for wish in ("eval.keep_best=true", "eval.patience=2"):
        with pytest.raises(HoneError) as caught:
            prepare_run(read("sft", [f"model={model_folder}", f"data={data_file}", "data.held_out=0", wish])[0], Console(quiet=True))
        assert caught.value.code == "C135"
