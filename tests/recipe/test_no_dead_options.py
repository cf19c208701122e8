"""No accepted option is dead: every field of every settings class is read by the code that it configures, and what runs differ by shows it.

Two nets. The first reads the source: each field must be used somewhere outside its own definition. The second changes values and
looks at what a run becomes (its batches, its plan, its data, its loss), for all fields that decide something before the first step.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from hone.core.errors import HoneError
from hone.data.batching import micro_batches
from hone.plan.machines import named
from hone.recipe.forecast import Wish, forecast
from hone.recipe.run import prepare_run
from hone.recipe.settings import PLAIN
from hone.recipe.words import read
from hone.tuning import METHODS
from tests.house.source import ROOT, python_files, tree


def reads() -> set[str]:
    """Names of all attributes that hone's code reads, and all keys that it takes out of mappings."""
    found: set[str] = set()
    for file in python_files("hone"):
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                found.add(str(node.slice.value))
    return found


def fields() -> Iterator[tuple[str, str]]:
    for section, cls in PLAIN.items():
        yield from ((section, field.name) for field in dataclasses.fields(cls))
    for name, method in METHODS.items():
        yield from ((f"tuning {name}", field.name) for field in dataclasses.fields(method))  # type: ignore[arg-type]


def test_every_field_is_read_somewhere() -> None:
    known = reads()
    assert [f"{section}.{name}" for section, name in fields() if name not in known] == []
    assert "a_name_that_nobody_reads" not in known


CHANGES = {
    "data.held_out": 0.3,
    "data.format": "messages",
    "data.template": "alpaca",
    "data.system": "Be brief.",
    "data.learn": "all",
    "data.max_length": 16,
    "data.overflow": "error",
    "data.seed": 7,
    "data.train": "OTHER",
    "optim.batch_size": 3,
    "optim.epochs": 5,
    "optim.max_steps": 3,
    "hardware.token_budget": 64,
    "hardware.recompute": "always",
    "hardware.dtype": "float64",
    "hardware.device": "cuda",
    "tuning.rank": 3,
    "tuning.alpha": 1,
    "tuning.targets": "q_proj",
    "tuning.exclude": ["q_proj"],
    "tuning.layers": [0],
    "tuning.rslora": "true",
    "tuning.dropout": 0.5,
    "model.name": "NOWHERE",
    "model.revision": "v9",
    "seed": 7,
}
"""Fields that decide something before the first step, each with another value than it has. `rollout` is in test_no_dead_rollout.py,
objectives are in tests/objectives/test_no_dead_settings.py."""


def what_it_becomes(model: Path, data: Path, *more: str) -> dict[str, Any]:
    """All that can be seen of a run before its first step, its settings left out; a refusal is its code."""

    raw, _ = read("sft", [f"model={model}", f"data={data}", "hardware.threads=1", *more])
    try:
        run = prepare_run(raw, Console(quiet=True))
        told = forecast(raw, Wish(named("cpu:8GB")))
    except HoneError as fault:
        return {"refused": fault.code}
    policy = run.policy
    policy.model.train()
    batch = micro_batches(list(run.prepared.groups)[:8], run.recipe.hardware.token_budget or 2048)[0]
    for parameter in policy.trainable().values():
        parameter.data += 0.01  # away from the start, where adapters are silent
    torch.manual_seed(0)
    with torch.no_grad():
        logp = policy.signals(batch, {"logp": {}}).logp
    moving = {name: float(p.detach().double().sum()) for name, p in policy.trainable().items()}
    scale = [float(module.scale) for module in policy.model.modules() if "scale" in vars(module)]
    return {
        "data": (run.prepared.fingerprint, run.prepared.split), "moving": moving, "scale": scale, "loss": float(logp.sum()), "steps": told.steps,
        "reasons": {k: v for k, v in run.recipe.resolved["reasons"].items() if "GB" not in v}, "tokens": len(batch.tokens_T),
        "kept": [module.gradient_checkpointing for module in policy.model.modules() if "gradient_checkpointing" in vars(module)],
    }  # fmt: skip


@pytest.fixture(scope="module")
def plain(model_folder: Path, data_file: Path) -> dict[str, Any]:
    return what_it_becomes(model_folder, data_file)


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_field_changes_the_run_or_is_refused(
    key: str, plain: dict[str, Any], model_folder: Path, data_file: Path, tmp_path: Path
) -> None:
    value = CHANGES[key]
    if value == "OTHER":
        value = tmp_path / "other.jsonl"
        value.write_text("".join(data_file.read_text().splitlines(keepends=True)[:30]))
    elif value == "NOWHERE":
        value = tmp_path / "nowhere"
    if key == "data.format":
        value = "alpaca"  # which these rows are not
    if key == "hardware.device" and torch.cuda.is_available():
        pytest.skip("there is a GPU, and a run on it is tested elsewhere")
    needed = ["data.max_length=16"] if key == "data.overflow" else []
    before = what_it_becomes(model_folder, data_file, *needed) if needed else plain
    found = what_it_becomes(model_folder, data_file, *needed, f"{key}={value}")
    assert found != before, f"{key} does nothing"


def test_the_list_of_changes_names_real_fields() -> None:
    known = (
        {f"{section}.{name}" for section, name in fields()} | {f"tuning.{f.name}" for f in dataclasses.fields(METHODS["lora"])} | {"seed"}
    )  # type: ignore[arg-type]
    assert set(CHANGES) <= known
    assert (ROOT / "hone").is_dir()
