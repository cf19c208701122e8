"""No accepted option is dead, in the part that only shows while a run goes on: each field of optim, eval, output and of the rest of
data and hardware leaves a trace of its own, or is refused. What shows before the first step is in `test_no_dead_options.py`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import PreTrainedModel

from hone.core.errors import HoneError
from hone.data.offline import Offline
from hone.models.settings import HardwareSettings, ModelSettings
from hone.objectives import OBJECTIVES
from hone.recipe.build import load_base
from hone.recipe.run import Wishes, prepare_run, train_run
from hone.recipe.settings import PLAIN
from hone.recipe.words import read
from hone.train.engine import Engine
from hone.train.health import Health
from hone.train.loop import train
from hone.train.settings import OptimSettings
from hone.tuning.lora import Lora
from tests import nets
from tests.recipe import test_no_dead_options

STEPPED: dict[str, Any] = {
    "learning_rate": 2e-2,
    "embedding_learning_rate": 1e-3,
    "schedule": "constant",
    "warmup_ratio": 0.9,
    "weight_decay": 0.5,
    "clip": 1e-3,
    "beta1": 0.1,
    "beta2": 0.5,
}
"""Fields of optim that show in the weights after a few steps."""
PLANNED = {"batch_size", "epochs", "max_steps"}
"""Those that show in the plan, before the first step."""
WATCHED: dict[str, Any] = {
    "eval.every": 1,
    "eval.max_rows": 2,
    "eval.samples": "[Hello, Who]",
    "eval.max_new_tokens": 3,
    "output.save_every": 3,
    "output.keep": 1,
    "output.log_every": 2,
}
ENDED: dict[str, Any] = {"eval.patience": 1, "eval.keep_best": "true", "eval.every": 1, "optim.learning_rate": 0.9, "optim.clip": "null"}
ELSEWHERE = {
    "output.folder": "every run below is in one",
    "output.trackers": "tests/report/test_trackers.py",
    "optim.name": "tests/train/test_engine.py",
    "optim.skip_limit": "test_a_run_of_bad_steps_ends_where_it_was_said",
    "data.columns": "test_what_is_left_of_data_and_hardware",
    "data.shuffle": "test_what_is_left_of_data_and_hardware",
    "data.skip_bad": "test_what_is_left_of_data_and_hardware",
    "hardware.threads": "test_what_is_left_of_data_and_hardware",
    "hardware.signals": "tests/recipe/test_every_objective.py",
    "hardware.compile": "test_what_is_left_of_data_and_hardware",
    "model.quantise": "tests/models/test_quantise.py",
    "model.double_quant": "tests/models/test_quantise.py",
    "model.teacher": "tests/recipe/test_every_objective.py",
    "model.trust_remote_code": "tests/models/test_safety.py",
}


def after_three_steps(make: Callable[[], PreTrainedModel], **changed: Any) -> dict[str, torch.Tensor]:
    """The weights that a few steps with these settings lead to."""
    policy = nets.policy(make, Lora(rank=2, train=("lm_head",)), moved=False)
    engine = Engine(policy, OptimSettings(**({"learning_rate": 1e-2} | changed)))
    source = Offline(nets.singles(6), step_groups=3, budget=200, max_steps=3, seed=0, shuffle=True)
    train(engine, source, OBJECTIVES["sft"])
    return {name: master.detach().clone() for name, master in zip(engine.names, engine.masters, strict=True)}


@pytest.fixture(scope="module")
def usual() -> dict[str, torch.Tensor]:
    return after_three_steps(nets.llama)


@pytest.mark.parametrize("field", STEPPED)
def test_a_field_of_the_optimiser_changes_the_weights(field: str, usual: dict[str, torch.Tensor]) -> None:
    found = after_three_steps(nets.llama, **{field: STEPPED[field]})
    assert any(not torch.equal(found[name], tensor) for name, tensor in usual.items())


def test_a_run_of_bad_steps_ends_where_it_was_said() -> None:
    limits = {Health(lambda kind, **fields: None, limit=limit).limit for limit in (1, 5)}
    assert limits == {1, 5}


def trained(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """What a short run leaves in its folder."""
    raw, _ = read("sft", [*words, f"output.folder={folder}", "hardware.threads=1", "hardware.dtype=float32"])
    assert train_run(prepare_run(raw, Console(quiet=True)), Wishes(command="a test")) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    return {
        "eval.every": [line["step"] for line in lines if "eval_loss" in line],
        "eval.max_rows": [line["eval_loss"] for line in lines if "eval_loss" in line][:1],
        "eval.samples": [event["prompt"] for event in events if event["kind"] == "sample"],
        "eval.max_new_tokens": max((len(event["answer"]) for event in events if event["kind"] == "sample"), default=0),
        "output.save_every": [event["step"] for event in events if event["kind"] == "checkpoint"],
        "output.keep": len(list((folder / "checkpoints").glob("step-*"))),
        "output.log_every": [line["step"] for line in lines if "loss" in line],
        "eval.patience": [event["step"] for event in events if event["kind"] == "early_stop"],
        "eval.keep_best": [event["step"] for event in events if event["kind"] == "best_kept"],
    }


def test_what_watches_and_keeps_a_run_does_so(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    words = [f"model={model_folder}", f"data={data_file}", "optim.max_steps=4", "data.held_out=0.2", "eval.samples=[Hello]"]
    plain = trained([*words, "eval.max_new_tokens=9"], tmp_path / "plain")
    other = trained([*words[:-1], *(f"{name}={value}" for name, value in WATCHED.items())], tmp_path / "other")
    assert [name for name in WATCHED if other[name] == plain[name]] == []
    worse = trained([*words, *(f"{name}={value}" for name, value in ENDED.items())], tmp_path / "worse")
    assert not plain["eval.patience"] and not plain["eval.keep_best"]
    assert worse["eval.patience"] and worse["eval.keep_best"]


def opened(model: Path, data: Path, *more: str) -> Any:
    """A run before its first step."""
    raw, _ = read("sft", [f"model={model}", f"data={data}", *more])
    return prepare_run(raw, Console(quiet=True))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_what_is_left_of_data_and_hardware(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.jsonl"
    odd.write_text('{"ask": "When?", "say": "At six."}\n' * 3 + '{"ask": 7}\n')
    with pytest.raises(HoneError):
        opened(model_folder, odd)
    columns = "data.columns={prompt: ask, completion: say}"
    with pytest.raises(HoneError):
        opened(model_folder, odd, columns)
    assert len(opened(model_folder, odd, columns, "data.skip_bad=true", "data.held_out=0").prepared.groups) == 3
    rows = nets.singles(9)
    orders = [[Offline(rows, step_groups=3, budget=99, shuffle=each).chosen(step) for step in (1, 2, 3)] for each in (True, False)]
    assert orders[0] != orders[1]
    before = torch.get_num_threads()
    opened(model_folder, data_file, f"hardware.threads={before + 1}")
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)
    bases = [load_base(ModelSettings(name=str(model_folder)), HardwareSettings(compile=wish)).model for wish in (True, False)]
    assert [any(module._compiled_call_impl is not None for module in base.modules()) for base in bases] == [True, False]


def test_every_field_of_the_plain_sections_is_in_one_of_the_nets() -> None:
    every = {f"{section}.{field.name}" for section, cls in PLAIN.items() for field in dataclasses.fields(cls)}
    stepped = {f"optim.{name}" for name in {*STEPPED, *PLANNED}}
    covered = set(test_no_dead_options.CHANGES) | stepped | set(WATCHED) | set(ENDED) | set(ELSEWHERE)
    assert every - covered == set()
    assert not {*WATCHED, *ENDED, *ELSEWHERE} - every
