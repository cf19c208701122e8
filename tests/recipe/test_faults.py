"""What goes wrong in a run beside kills: numbers that are not finite, a second process, other data, a loss that does not fall."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from hone.train import checkpoint
from hone.train.lock import run_lock
from tests.conftest import Work
from tests.recipe.test_kills import metrics, words


def talks(file: Path, weights: list[float]) -> Path:
    """A conversation for each weight of its answer; one that no float32 can hold makes the loss infinite."""
    rows = ([{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}", "weight": w}] for i, w in enumerate(weights))
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return file


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_step_that_is_not_finite_is_skipped_and_names_its_rows(work: Work, model_folder: Path, tmp_path: Path) -> None:
    data = talks(tmp_path / "train.jsonl", [1.0] * 24 + [1e39])
    command = words(model_folder, data, tmp_path / "run", "data.held_out=0", "optim.epochs=1", "eval.keep_best=false")
    assert work(command, log=tmp_path / "log.txt") == 0, (tmp_path / "log.txt").read_text()
    (skipped,) = events(tmp_path / "run", "skipped_step")
    assert skipped["code"] == "F010" and f"{data}:25" in skipped["rows"]
    losses = {line["step"]: line["loss"] for line in metrics(tmp_path / "run")}
    assert [step for step, loss in losses.items() if loss is None] == [skipped["step"]] and len(losses) == 5


def test_steps_in_a_row_that_are_not_finite_stop_the_run(work: Work, model_folder: Path, tmp_path: Path) -> None:
    data, log = talks(tmp_path / "train.jsonl", [1e39] * 24), tmp_path / "log.txt"
    assert work(words(model_folder, data, tmp_path / "run", "data.held_out=0", "eval.keep_best=false"), log=log) == 4
    assert "F010" in log.read_text() and "no step was ever finite" in log.read_text() and "Traceback" not in log.read_text()


def test_a_second_process_is_told_who_trains_in_the_folder(work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    (tmp_path / "run").mkdir()
    with run_lock(tmp_path / "run"):
        assert work(words(model_folder, data_file, tmp_path / "run"), log=log) == 4
    assert "F002" in log.read_text() and f"pid {os.getpid()}" in log.read_text()


def test_changed_data_is_taken_with_consent_and_written_down(work: Work, model_folder: Path, data_file: Path, tmp_path: Path) -> None:
    data, folder = Path(shutil.copy(data_file, tmp_path)), tmp_path / "run"
    assert work(words(model_folder, data, folder), fault="after_step 4") == -9
    data.write_text(data.read_text().replace("0: ", "00: ", 1))
    log = tmp_path / "log.txt"
    assert work(words(model_folder, data, folder), log=log) == 4
    assert work(words(model_folder, data, folder, "--allow-data-change"), log=log) == 0, log.read_text()
    assert "changed since the start: the training data" in log.read_text()
    assert "--allow-data-change" in events(folder, "changed")[0]["what"]


def test_a_loss_that_does_not_fall_ends_the_run_and_the_start_is_kept(
    work: Work, model_folder: Path, data_file: Path, tmp_path: Path
) -> None:
    log, folder = tmp_path / "log.txt", tmp_path / "run"
    command = words(model_folder, data_file, folder, "optim.learning_rate=1e-12", "eval.patience=2", "tuning.dropout=0", "eval.every=1")
    assert work(command, log=log) == 0, log.read_text()
    (early,) = events(folder, "early_stop")
    assert (early["best_step"], early["step"]) == (0, 2)
    assert "kept the weights of the start" in log.read_text()
    tensors = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert not any(bool(tensor.any()) for name, tensor in tensors.items() if ".lora_B." in name)
    last = checkpoint.latest(folder, tell=print)
    assert last is not None and last.step == 2
    lines = metrics(folder)
    assert work(command, log=log) == 0, log.read_text()
    assert metrics(folder) == lines and checkpoint.latest(folder, tell=print) == last, "the same command finds nothing left to do"
