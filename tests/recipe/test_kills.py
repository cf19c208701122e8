"""A run that is killed, again and again, ends as the run that never was: parameters, optimiser and metrics, to the bit."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hone.train import checkpoint
from tests.conftest import Work

CLOCKS = ("seconds", "tokens_per_second", "memory_bytes")


def words(model: Path, data: Path, folder: Path, *more: str) -> list[str]:
    """A short run with everything switched on that could go wrong: dropout, shuffling, accumulation, evaluation."""
    settings = {
        "model": model, "data": data, "output": folder, "output.save_every": 2, "output.keep": 2, "eval.every": 3, "eval.keep_best": "true",
        "optim.learning_rate": 0.01, "optim.batch_size": 6, "optim.epochs": 2, "tuning.rank": 4, "tuning.dropout": 0.1,
        "hardware.token_budget": 100, "hardware.dtype": "float32", "hardware.threads": 1,
    }  # fmt: skip
    return ["train", "sft", *(f"{key}={value}" for key, value in settings.items()), *more]


def metrics(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what clocks and memory say."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCKS} for line in lines]


def state(folder: Path) -> dict[str, bytes]:
    """Every tensor of the last checkpoint, as bytes."""
    found = checkpoint.latest(folder, tell=print)
    assert found is not None
    tensors = load_file(found.path / "tensors.safetensors")
    return {"step": str(found.step).encode()} | {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


@pytest.fixture(scope="module")
def golden(work: Work, model_folder: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "run"
    log = folder.parent / "log.txt"
    assert work(words(model_folder, data_file, folder), log=log) == 0, log.read_text()
    return folder


def by_step(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measurements in front of their steps and only there: one that a stop gave up is made later, and stands after its step."""
    steps = [{key: value for key, value in line.items() if "loss" not in line or not key.startswith("eval_")} for line in lines]
    return sorted(steps, key=lambda line: (line["step"], "loss" in line))


def same(folder: Path, golden: Path, *, given_up: bool = False) -> None:
    assert state(folder) == state(golden)
    order = by_step if given_up else list
    assert order(metrics(folder)) == order(metrics(golden))
    name = "adapter/adapter_model.safetensors"
    assert (folder / name).read_bytes() == (golden / name).read_bytes()


def test_the_golden_run_learned_something(golden: Path) -> None:
    losses = [line["eval_loss"] for line in metrics(golden) if "eval_loss" in line]
    assert losses[-1] < losses[0]
    for name in ("recipe.yaml", "resolved.json", "ledger.json", "events.jsonl", "report.html", "README.md"):
        assert (golden / name).stat().st_size > 0


def test_twenty_kills_at_random_moments(golden: Path, work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    rng = random.Random(4)
    folder = tmp_path / "run"
    command = words(model_folder, data_file, folder)
    log = tmp_path / "log.txt"
    points = [f"mid_step {rng.randint(1, 12)}" for _ in range(8)]
    points += [
        "after_write:tensors.safetensors",
        "before_write:state.json",
        "before_rename",
        "after_rename",
        "before_prune",
        "evaluation 2",
        "after_step 2",
    ]
    ends = [work(command, fault=point, log=log) for point in points]
    ends += [work(command, kill_after=rng.uniform(0.3, 2.5), log=log) for _ in range(20 - len(points))]
    assert set(ends) <= {0, -9} and ends.count(-9) >= 12, (ends, log.read_text())
    assert work(command, log=log) == 0, log.read_text()
    same(folder, golden)


def test_sigterm_saves_and_the_same_command_goes_on(golden: Path, work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = words(model_folder, data_file, folder)
    assert work(command, fault="prepare 1 TERM") == -15, "there is nothing to save yet"
    for point in ("mid_step 5 TERM", "evaluation 2 TERM", "before_rename 1 TERM", "mid_step 3 INT"):
        status = 130 if point.endswith("INT") else 143
        assert work(command, fault=point, log=tmp_path / "log.txt") in (status, 0), (tmp_path / "log.txt").read_text()
        assert checkpoint.latest(folder, tell=print) is not None
    assert work(command) == 0
    same(folder, golden, given_up=True)


def test_killed_while_the_result_is_written(golden: Path, work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = words(model_folder, data_file, folder)
    assert work(command, fault="after_write:adapter_model.safetensors 2") == -9, "the first time is the rehearsal"
    assert not (folder / "adapter").exists()
    assert work(command, fault="before_write:report.html") == -9
    assert (folder / "adapter" / "adapter_config.json").exists() and not (folder / "report.html").exists()
    assert work(command) == 0
    same(folder, golden)


def test_the_same_seed_gives_the_same_adapter(golden: Path, work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    assert work(words(model_folder, data_file, tmp_path / "run")) == 0
    same(tmp_path / "run", golden)


def test_changed_settings_and_data_are_refused(golden: Path, work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert work(words(model_folder, data_file, golden, "optim.learning_rate=0.02"), log=log) == 4
    assert "F011" in log.read_text() and "optim.learning_rate" in log.read_text()
    other = tmp_path / "train.jsonl"
    other.write_text(data_file.read_text().replace("0: ", "00: ", 1))
    assert work(words(model_folder, other, golden), log=log) == 4
    assert "F012" in log.read_text()


def test_fresh_starts_over(golden: Path, work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert work(words(model_folder, data_file, folder), fault="after_rename 2") == -9
    assert work(words(model_folder, data_file, folder, "--fresh")) == 0
    same(folder, golden)
