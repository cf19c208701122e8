"""Held-out rows are measured one by one, and a run that pauses goes on as if it had not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hone.eval.heldout import recall
from hone.recipe.run import Wishes, prepare_run, train_run
from hone.recipe.settings import resolve
from hone.recipe.stores import Stores, leaves_base_alone
from tests.recipe.conftest import WORDS

QUIET = Console(quiet=True, force_terminal=False)


def raw(model: Path, data: Path, folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "model": {"name": str(model)}, "data": {"train": str(data)}, "tuning": {"rank": 2}, "output": {"folder": str(folder)},
        "optim": {"max_steps": 4, "batch_size": 8, "learning_rate": 0.01}, "hardware": {"threads": 1, "dtype": "float32"}, **more,
    }  # fmt: skip


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second", "memory_bytes")} for line in lines]


def train(settings: dict[str, Any], **wishes: Any) -> int:
    return train_run(prepare_run(settings, QUIET), Wishes(**wishes))


def test_a_paused_run_goes_on_as_if_it_had_not_and_leaves_its_rows(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert train(raw(model_folder, data_file, whole)) == 0
    assert train(raw(model_folder, data_file, halves), until=0.5) == 0
    paused = recall(halves)
    assert paused is not None and paused.step == 2 and not (halves / "adapter").exists()
    assert train(raw(model_folder, data_file, halves), until=0.5) == 0, "paused again, it stays where it is"
    assert train(raw(model_folder, data_file, halves)) == 0
    assert metrics(whole) == metrics(halves)
    ends = [recall(folder) for folder in (whole, halves)]
    assert ends[0] == ends[1] and ends[0] is not None
    last = [line["eval_loss"] for line in metrics(whole) if "eval_loss" in line][-1]
    assert ends[0].mean() == pytest.approx(last, rel=1e-6) and len(ends[0].rows) == 6


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_rows_add_up_to_the_held_out_loss(name: str, model_folder: Path, tmp_path: Path) -> None:
    """KTO looks at a whole step, so its rows are asked one by one with the statistics of all."""
    asked = [f"{i}: {WORDS[i % 10]} {WORDS[(3 * i) % 10]}" for i in range(24)]
    good, bad = (
        ({"prompt": text, "completion": text.split()[1]} for text in asked),
        ({"prompt": text, "completion": "no"} for text in asked),
    )
    pairs = [{"prompt": text, "chosen": text.split()[1], "rejected": "no"} for text in asked]
    rows = pairs if name == "dpo" else [{**row, "label": i == 0} for i, kind in enumerate((good, bad)) for row in kind]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = raw(model_folder, file, tmp_path / "run", objective={"name": name})
    settings["optim"]["max_steps"] = 1
    assert train(settings) == 0
    found = recall(tmp_path / "run")
    last = [line for line in metrics(tmp_path / "run") if "eval_loss" in line][-1]
    assert found is not None and found.mean() == pytest.approx(last["eval_loss"], rel=1e-5)
    others = [metric for metric in found.sums if metric not in ("units", "loss")]
    assert others and all(found.mean(each) == pytest.approx(last[f"eval_{each}"], rel=1e-4, abs=1e-6) for each in others)


def test_runs_share_what_none_of_them_moves(model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    stores = Stores(shared=True)
    runs = [prepare_run(raw(model_folder, data_file, tmp_path / name, tuning=tuning), QUIET, stores)
            for name, tuning in (("a", {"rank": 2}), ("b", {"rank": 4}), ("c", {"method": "full"}))]  # fmt: skip
    one, two, three = (run.policy.model.get_input_embeddings().weight for run in runs)  # type: ignore[operator]
    assert one is two and one is not three
    assert runs[0].prepared is runs[1].prepared is runs[2].prepared
    assert not leaves_base_alone(resolve(raw(model_folder, data_file, tmp_path, tuning={"init": "loftq"})))
