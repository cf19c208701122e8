"""A run that starts from an earlier run, or from an adapter, starts from what that one had learned: so says its reference too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hone.core.types import Message
from hone.data.batching import micro_batches
from hone.models.policy import evaluating
from hone.recipe.build import Opened
from hone.recipe.opening import open_model
from hone.recipe.start import base_of, merge
from tests.conftest import Work
from tests.recipe.conftest import WORDS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("start")
    asked = [f"{i}: {WORDS[i % 10]} {WORDS[(3 * i) % 10]}" for i in range(16)]
    rows = {
        "single": [{"prompt": text, "completion": text.split()[1]} for text in asked],
        "pair": [{"prompt": text, "chosen": text.split()[1], "rejected": "no"} for text in asked],
    }
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return {name: folder / f"{name}.jsonl" for name in rows}


def words(objective: str, model: Path, data: Path, folder: Path, *more: str) -> list[str]:
    settings = {
        "model": model, "data": data, "output": folder, "optim.max_steps": 3, "optim.batch_size": 4, "optim.learning_rate": 0.02,
        "hardware.dtype": "float32", "hardware.threads": 1, "data.held_out": 0,
    }  # fmt: skip
    return ["train", objective, *(f"{key}={value}" for key, value in settings.items()), *more]


@torch.no_grad()
def said(opened: Opened) -> torch.Tensor:
    """Log-probabilities of a fixed answer."""
    talk = (Message("user", "3: harbour ship"), Message("assistant", "harbour lantern rope"))
    batch = micro_batches([(opened.template.sequence(talk),)], 512)[0]
    with evaluating(opened.policy.model):
        return opened.policy.signals(batch, "logp").logp


def first_loss(folder: Path) -> float:
    return float(json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["loss"])


@pytest.mark.parametrize("method", ["lora", "full"])
def test_dpo_from_a_run_refers_to_what_that_run_learned(
    method: str, work: Work, model_folder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    log, sft, dpo = tmp_path / "log.txt", tmp_path / "sft", tmp_path / "dpo"
    assert work(words("sft", model_folder, files["single"], sft, f"tuning={method}"), log=log) == 0, log.read_text()
    assert work(words("dpo", sft, files["pair"], dpo, "hardware.signals=live"), log=log) == 0, log.read_text()
    assert first_loss(dpo) == pytest.approx(0.693147, abs=1e-5)
    name = json.loads((dpo / "resolved.json").read_text())["model"]["name"]
    assert name == str(sft / ("merged" if method == "lora" else "model"))
    reference, learned, base = (said(open_model(place)) for place in (name, sft, model_folder))
    torch.testing.assert_close(reference, learned, atol=1e-5, rtol=0)
    assert (reference - base).abs().max() > 1e-2, "the run had learned nothing"
    opened = open_model(dpo)
    with opened.policy.tuning.disabled(opened.policy.model):
        torch.testing.assert_close(said(opened), learned, atol=1e-5, rtol=0)
    assert base_of(str(dpo)) == name and base_of(str(sft)) == (str(model_folder) if method == "lora" else name)


def test_an_adapter_alone_will_do_and_one_that_changed_is_merged_again(
    work: Work, model_folder: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    log, sft = tmp_path / "log.txt", tmp_path / "sft"
    assert work(words("sft", model_folder, files["single"], sft), log=log) == 0, log.read_text()
    assert work(words("orpo", sft / "adapter", files["pair"], tmp_path / "orpo"), log=log) == 0, log.read_text()
    place = merge(sft)
    made = (place / "model.safetensors").stat().st_mtime_ns
    assert (merge(sft) / "model.safetensors").stat().st_mtime_ns == made, "made once"
    assert work([*words("sft", model_folder, files["single"], sft, "seed=9", "optim.learning_rate=0.05"), "--fresh"], log=log) == 0
    merge(sft)
    torch.testing.assert_close(said(open_model(place)), said(open_model(sft)), atol=1e-5, rtol=0)


def test_a_judge_and_a_run_without_an_end_are_no_start(work: Work, model_folder: Path, files: dict[str, Path], tmp_path: Path) -> None:
    log, rm = tmp_path / "log.txt", tmp_path / "rm"
    assert work(words("rm", model_folder, files["pair"], rm), fault="mid_step 2", log=log) != 0
    assert work(words("dpo", rm, files["pair"], tmp_path / "dpo"), log=log) == 4 and "F007" in log.read_text()
    assert work(words("rm", model_folder, files["pair"], rm), log=log) == 0, log.read_text()
    assert work(words("dpo", rm, files["pair"], tmp_path / "dpo"), log=log) == 2 and "C170" in log.read_text()
