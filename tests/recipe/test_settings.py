"""Run files, overrides and habits become one validated recipe; what cannot be meant is refused before anything is loaded."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from hone.core.errors import HoneError
from hone.recipe.settings import resolve
from hone.recipe.words import ALIASES, PRESETS, read
from hone.tuning import METHODS
from hone.tuning.lora import Lora

BASE = ["model=some/model", "data=train.jsonl"]


def recipe(*settings: str, source: str = "sft"):  # type: ignore[no-untyped-def]
    raw, _ = read(source, [*BASE, *settings])
    return resolve(raw)


def refused(code: str, *settings: str, source: str = "sft") -> HoneError:
    with pytest.raises(HoneError) as caught:
        recipe(*settings, source=source)
    assert caught.value.code == code
    return caught.value


def test_short_forms_and_defaults() -> None:
    made = recipe()
    assert made.model.name == "some/model" and made.data.train == "train.jsonl" and made.objective.name == "sft"
    assert isinstance(made.tuning, Lora) and made.tuning.rank == 16
    assert made.resolved["tuning"]["method"] == "lora" and made.resolved["optim"]["batch_size"] == 16


def test_a_run_file_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "model: a/b\ndata: {train: x.jsonl}\nobjective: {name: sft, focus: 0.5}\ntuning: {method: lora, rank: 4}\noptim: {learning_rate: 2e-4}\n"
    )
    raw, notes = read(str(file), ["tuning.rank=8", "optim.epochs=2"])
    made = resolve(raw)
    assert made.tuning.rank == 8 and made.optim.epochs == 2 and made.resolved["objective"]["focus"] == 0.5  # type: ignore[attr-defined]
    assert made.optim.learning_rate == 2e-4, "YAML reads 2e-4 as text; a person means a number"
    assert notes == []


def test_habits_are_understood_and_answered_with_our_names() -> None:
    raw, notes = read(
        "sft", [*BASE, "learning_rate=1e-4", "per_device_train_batch_size=2", "gradient_accumulation_steps=8", "lora_r=32", "--max_steps=5"]
    )
    made = resolve(raw)
    assert (made.optim.learning_rate, made.optim.batch_size, made.tuning.rank, made.optim.max_steps) == (1e-4, 16, 32, 5)  # type: ignore[attr-defined]
    assert any("optim.learning_rate" in note for note in notes) and any("optim.batch_size" in note for note in notes)


def test_every_alias_names_a_setting_that_exists() -> None:
    resolved = recipe("rollout.rewards=number", source="grpo").resolved
    methods = {field.name for method in METHODS for field in fields(METHODS[method])}
    for alias, name in ALIASES.items():
        if name.startswith("tuning."):
            assert name == "tuning.method" or name.partition(".")[2] in methods, alias
            continue
        place = resolved
        for part in name.split("."):
            assert part in place, alias
            place = place[part]


@pytest.mark.parametrize(
    ("code", "setting", "says"),
    [
        ("C002", "optim.learning_rat=1", "learning_rate"),
        ("C002", "optimiser.x=1", "optim"),
        ("C001", "optim.learning_rate=fast", "optim.learning_rate"),
        ("C001", "optim.learning_rate=inf", "optim.learning_rate"),
        ("C001", "optim.learning_rate=.nan", "optim.learning_rate"),
        ("C001", "optim.learning_rate=1e6", "optim.learning_rate"),
        ("C001", "optim.learning_rate=-1", "optim.learning_rate"),
        ("C001", "optim.batch_size=0", "optim.batch_size"),
        ("C001", "tuning.rank=0", "rank"),
        ("C001", "gradient_accumulation_steps=0", "batch"),
        ("C003", "tuning=lorra", "lora"),
        ("C005", "fresh", "name=value"),
        ("C136", "double_quant=true", "model.double_quant"),
        ("C002", "objective.beta=1", "focus"),
    ],
)
def test_what_cannot_be_meant_is_refused(code: str, setting: str, says: str) -> None:
    assert says in str(refused(code, setting))


def test_epochs_and_steps_contradict() -> None:
    refused("C004", "optim.epochs=1", "optim.max_steps=10")


def test_a_missing_or_broken_file(tmp_path: Path) -> None:
    refused("C006", source=str(tmp_path / "no.yaml"))
    broken = tmp_path / "run.yaml"
    broken.write_text("a: [1\n")
    refused("C006", source=str(broken))


def test_unknown_objective_gets_the_nearest_name() -> None:
    assert "sft" in str(refused("C003", source="sfft"))


def test_presets_are_whole_recipes_and_overrides_reach_into_them() -> None:
    for file in PRESETS.glob("*.yaml"):
        online = "rollout:" in file.read_text("utf-8")
        made = recipe(*["rollout.rewards=number"] * online, "optim.max_steps=9", source=file.stem.replace("_", "-"))
        assert (made.rollout is not None) == online and made.optim.max_steps == 9, file
        assert made.rollout is None or made.rollout.sampling.temperature == 1.0, file
    made = recipe("rollout.rewards=[number, {name: length, most: 9, weight: 0.1}]", "rollout.credit.scale=none", "num_generations=4",
                  "rollout.sampling.top_p=0.9", source="grpo")  # fmt: skip
    assert made.rollout is not None and made.rollout.group_size == 4 and made.rollout.sampling.top_p == 0.9
    assert made.resolved["rollout"]["credit"] == {"name": "centred", "scale": "none"}
    assert resolve(made.resolved).resolved == made.resolved, "what is resolved can be resolved again"


def test_every_named_method_has_a_preset_and_no_preset_chooses_weights_or_data() -> None:
    named = {"sft", "dft", "cpt", "dpo", "ipo", "kto", "orpo", "cpo", "simpo", "mpo", "rm", "prm", "distill", "gkd", "ppo", "grpo", "rloo"}
    presets = {file.stem: yaml.safe_load(file.read_text("utf-8")) for file in PRESETS.glob("*.yaml")}
    assert named <= presets.keys()
    for name, sections in presets.items():
        assert sections.keys() <= {"objective", "optim", "rollout"}, name
        assert not {"learning_rate", "epochs", "max_steps"} & sections["optim"].keys(), (
            f"{name}: the adviser chooses these by size and rows"
        )


@pytest.mark.parametrize(
    ("code", "source", "settings", "says"),
    [
        ("C061", "grpo", ["rollout=null"], "judges"),
        ("C061", "grpo", [], "rollout.rewards"),
        ("C061", "grpo", ["rollout.rewards=number", "rollout.credit=best"], "centred"),
        ("C061", "dpo", ["rollout.rewards=number"], "best_and_worst"),
        ("C061", "rm", ["rollout.rewards=number"], "best_and_worst"),
        ("C069", "grpo", ["rollout.rewards=number", "data.overflow=drop"], "overflow"),
        ("C069", "grpo", ["rollout.rewards=number", "rollout.prompts=other.jsonl"], "prompts"),
        ("C001", "grpo", ["rollout.rewards=number", "rollout.sampling.temprature=1"], "rollout.sampling.temprature"),
        ("C002", "grpo", ["rollout.rewards=number", "rollout.credit.scal=none"], "scale"),
        ("C003", "grpo", ["rollout.rewards=number", "rollout.credit=centered"], "centred"),
    ],
)
def test_a_rollout_that_cannot_be_meant_is_refused(code: str, source: str, settings: list[str], says: str) -> None:
    assert says in str(refused(code, *settings, source=source))


def test_an_objective_that_needs_answers_of_its_own_says_so() -> None:
    with pytest.raises(HoneError) as caught:
        resolve({"model": {"name": "a"}, "data": {"train": "b"}, "objective": {"name": "grpo"}})
    assert caught.value.code == "C061" and "rollout.prompts" in str(caught.value)
