"""Pipelines go on where they stopped, each stage starts from the model of the one before, and a table tells what it brought."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.recipe import pipeline
from tests.conftest import Work
from tests.recipe.conftest import WORDS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    asked = [f"{i}: {WORDS[i % 10]} {WORDS[(3 * i) % 10]}" for i in range(24)]
    rows = {
        "data": [{"prompt": text, "completion": text.split()[1]} for text in asked],
        "preferences": [{"prompt": text, "chosen": text.split()[1], "rejected": "no"} for text in asked],
        "prompts": [{"prompt": text} for text in asked],
    }
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return {name: folder / f"{name}.jsonl" for name in rows}


def words(name: str, model: Path, files: dict[str, Path], folder: Path) -> list[str]:
    settings = {
        "model": model, **files, "output": folder, "optim.max_steps": 2, "optim.batch_size": 4, "optim.learning_rate": 0.01, "tuning.rank": 2,
        "hardware.dtype": "float32", "hardware.threads": 1, "eval.max_rows": 4, "stages.ppo.rollout.sampling.max_new_tokens": 6,
        "stages.ppo.optim.batch_size": 2,
    }  # fmt: skip
    return ["pipeline", name, *(f"{key}={value}" for key, value in settings.items())]


def starts(folder: Path) -> dict[str, float]:
    """When each stage began, by its first event."""
    return {file.parent.name: json.loads(file.read_text().partition("\n")[0])["t"] for file in folder.glob("*/events.jsonl")}


@pytest.mark.parametrize(("name", "stages"), [("sft+dpo", ["1-sft", "2-dpo"]), ("sft+rlhf", ["1-sft", "2-rm", "3-ppo"])])
def test_killed_after_the_first_stage_it_goes_on_with_the_second(
    name: str, stages: list[str], work: Work, model_folder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    folder, log = tmp_path / "pipe", tmp_path / "log.txt"
    command = words(name, model_folder, files, folder)
    assert work(command, fault="stage 2", log=log) == -9, log.read_text()
    assert list(starts(folder)) == ["1-sft"] and pipeline.finished(folder / "1-sft")
    before = starts(folder)
    assert work(command, log=log) == 0, log.read_text()
    assert sorted(starts(folder)) == stages and starts(folder)["1-sft"] == before["1-sft"]
    assert "sft: done already" in log.read_text()
    second = json.loads((folder / stages[-1] / "resolved.json").read_text())
    assert second["model"]["name"] == str(folder / "1-sft" / "merged")
    rows = json.loads((folder / "table.json").read_text())
    assert [row["model"] for row in rows] == ["base", "SFT", f"SFT + {stages[-1][2:].upper()}"]
    extra = "reward" if "rlhf" in name else "prefers the chosen"
    assert all({"held-out loss", extra} <= row.keys() for row in rows)
    assert rows[1]["held-out loss"] < rows[0]["held-out loss"]
    assert "SFT" in log.read_text()


def test_a_stage_without_data_is_refused_before_anything_starts(model_folder: Path) -> None:
    raw: dict[str, Any] = {"model": {"name": str(model_folder)}, "data": {"train": "x.jsonl"}}
    with pytest.raises(HoneError) as caught:
        pipeline.plan("sft+dpo", raw)
    assert caught.value.code == "C068" and "preferences" in str(caught.value)
    with pytest.raises(HoneError) as caught:
        pipeline.plan("sft+dop", raw)
    assert caught.value.code == "C003"
    rlhf = pipeline.plan("sft+rlhf", raw | {"preferences": "p.jsonl"})
    assert rlhf[2][2]["data"]["train"] == "x.jsonl", "without prompts, those of the data are asked"
    assert rlhf[2][2]["objective"]["name"] == "ppo" and rlhf[2][2]["rollout"]["rewards"] == [{"name": "model", "run": str(rlhf[1][1])}]
