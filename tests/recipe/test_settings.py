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


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (b"a: [1\n", "run.yaml:2:1", "close the bracket"),
        (b"model: a/b\ndata:\n\ttrain: x.jsonl\n", "run.yaml:3:1", "no tabs"),
        (b"model: a/b\nmodel: c/d\n", "run.yaml:2:1", "'model' stands twice"),
        (b"optim: {epochs: 1, epochs: 2}\n", "run.yaml:1:20", "'epochs' stands twice"),
        (b"model: !!python/object/apply:os.system ['true']\n", "run.yaml:1:8", "runs no code"),
        (b"model: caf\xe9\n", "byte 11", "UTF-8"),
        (b"model: " + b"[" * 5000, "run.yaml", "too deeply"),
        (b"- a\n", "run.yaml", "list of sections"),
        (b"", "run.yaml", "list of sections"),
        (None, "run.yaml", "cannot be read"),
    ],
)
def test_a_broken_file_is_told_with_its_place(text: bytes | None, place: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.mkdir() if text is None else file.write_bytes(text)
    fault = refused("C006", source=str(file))
    assert place in fault.where and says in str(fault) and fault.fix


def test_a_file_that_is_not_there_and_one_with_a_byte_order_mark(tmp_path: Path) -> None:
    refused("C006", source=str(tmp_path / "no.yaml"))
    (tmp_path / "run.yaml").write_bytes(b"\xef\xbb\xbfmodel: a/b\ndata: x.jsonl\n")
    assert read(str(tmp_path / "run.yaml"), [])[0]["model"]["name"] == "a/b"


def test_a_section_is_no_value() -> None:
    assert "hone explain hardware" in str(refused("C001", "hardware=5"))


def test_an_empty_section_has_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: a/b\ndata: x.jsonl\noptim:\neval:\ntuning:\noutput:\n")
    made = resolve(read(str(tmp_path / "run.yaml"), [])[0])
    assert made.optim.name == "adamw" and isinstance(made.tuning, Lora)


@pytest.mark.parametrize(
    ("words", "where", "says"),
    [
        ([], "model.name", "model.name is not given"),
        (["model=a/b"], "data.train", "data.train is not given"),
        (["model=a/b", "data=[]"], "data.train", "at least 1"),
        (["model=a/b", "data=[5]"], "data.train.0", "valid string (got 5)"),
        (["model=a/b", "data=[{path: x.jsonl, weight: -1}]"], "data.train.0.weight", "greater than 0"),
        (["model=a/b", "data=[{pth: x.jsonl}]"], "data.train.0.path", "data.train.0.path is not given"),
        ([*BASE, "data.held_out=1.0"], "data.held_out", "less than 1"),
        ([*BASE, "optim.epochs=many"], "optim.epochs", "`hone explain optim.epochs`"),
        ([*BASE, "tuning.rank=0"], "tuning.rank", "`hone explain tuning.rank`"),
        ([*BASE, "seed=99999999999999999999"], "seed", "(got 99999999999999999999)"),
        ([*BASE, "seed=-1"], "seed", "greater than or equal to 0"),
    ],
)
def test_what_does_not_fit_is_told_by_its_name(words: list[str], where: str, says: str) -> None:
    with pytest.raises(HoneError) as caught:
        resolve(read("sft", words)[0])
    assert (caught.value.code, caught.value.where) == ("C001", where) and says in str(caught.value)


def test_one_value_stands_for_a_list() -> None:
    made = recipe("report_to=wandb", "eval.samples=Hello there", "tuning.layers=1")
    assert made.output.trackers == ("wandb",) and made.eval.samples == ("Hello there",) and made.tuning.layers == (1,)  # type: ignore[attr-defined]


def test_words_that_are_no_settings_are_told_how_they_could_be_meant(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("{}")
    assert "written learning_rate=VALUE" in str(refused("C005", "--learning_rate", "1e-4"))
    assert f"write data={file}" in str(refused("C005", str(file)))
    assert f"hone train sft model=MODEL data={file}" in str(refused("C005", source=str(file)))
    known = str(refused("C002", "zzz.a=1"))
    assert "known: model, data" in known and "lora_r" not in known


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
