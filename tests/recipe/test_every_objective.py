"""Every family of objectives trains from the command line on the town's data: settings with reasons, its own numbers, an artifact that opens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hone.demo import Town
from hone.recipe.opening import open_model
from tests.conftest import Work

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAIRED = ("dpo", "aot", "orpo", "simpo", "mpo")
"""With a reference, with statistics of the step, without a reference, and several at once; the others take the same ways."""
STEP_ROWS = [
    {"prompt": f"What is {a} + {b} + 1?", "completions": [f"{a} + {b} = {a + b}.", f"So it is {a + b + odd}."], "labels": [True, odd == 1]}
    for a, b, odd in [(2, 3, 1), (4, 5, 0), (7, 1, 1), (6, 6, 0), (1, 8, 1), (9, 2, 0)] * 3
]


@pytest.fixture(scope="module")
def wide_model(
    tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A tiny model with room for the town's rows."""
    folder = tmp_path_factory.mktemp("wide")
    tiny_qwen3(max_position_embeddings=2048).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, town = tmp_path_factory.mktemp("town"), Town()
    rows: dict[str, Iterable[dict[str, Any]]] = {
        "pair": list(town.preferences("train"))[:24],
        "label": list(town.labels("train"))[:24],
        "single": list(town.instructions("train"))[:24],
        "steps": STEP_ROWS,
        "class": [{"text": f"parcel {i} is {'late' if i % 2 else 'here'}", "label": "bad" if i % 2 else "good"} for i in range(24)],
        "number": [{"text": f"{i} loaves", "label": str(2 * i)} for i in range(24)],
    }
    for name, some in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return {name: folder / f"{name}.jsonl" for name in rows}


def run(work: Work, model: Path, objective: str, data: Path, folder: Path, *more: str) -> str:
    settings = {
        "model": model, "data": data, "output": folder, "optim.max_steps": 2, "optim.batch_size": 4, "tuning.rank": 2, "eval.max_rows": 4,
        "eval.every": 2, "hardware.dtype": "float32", "hardware.threads": 1,
    }  # fmt: skip
    log = folder.with_suffix(".log")
    words = ["train", objective, *(f"{key}={value}" for key, value in settings.items()), *more]
    status = work([word for word in words if not (more and word.startswith("tuning.rank") and "tuning.method=full" in more)], log=log)
    text = log.read_text()
    assert status == 0, text
    return text


def numbers(folder: Path) -> dict[str, float]:
    """The last value of every metric."""
    found: dict[str, float] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        found |= json.loads(line)
    return found


@pytest.mark.parametrize("name", PAIRED)
def test_preferences(name: str, work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / name
    run(work, wide_model, name, files["pair"], folder)
    found = numbers(folder)
    assert 0 <= found["eval_accuracy"] <= 1 and math.isfinite(found["eval_margin"]) and math.isfinite(found["loss"])
    resolved = json.loads((folder / "resolved.json").read_text())
    assert "small steps" in resolved["reasons"]["optim.learning_rate"] and resolved["optim"]["learning_rate"] > 5e-6
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    ledger = json.loads((folder / "ledger.json").read_text())
    assert ledger["total"] == 24 == sum(ledger[kind]["rows"] for kind in ("trained", "held_out", "truncated", "masked", "dropped"))


@pytest.mark.parametrize(("name", "data"), [("kto", "label"), ("bco", "label"), ("kto", "pair"), ("pointwise_rm", "label")])
def test_labels(name: str, data: str, work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path) -> None:
    run(work, wide_model, name, files[data], tmp_path / "run")
    assert 0 <= numbers(tmp_path / "run")["eval_accuracy"] <= 1


@pytest.mark.parametrize(("name", "data"), [("prm", "steps"), ("classifier", "class"), ("regressor", "number")])
def test_heads(name: str, data: str, work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path) -> None:
    run(work, wide_model, name, files[data], tmp_path / "run")
    resolved = json.loads((tmp_path / "run" / "resolved.json").read_text())
    assert (tmp_path / "run" / "adapter" / "heads.safetensors").is_file()
    assert resolved["objective"].get("classes") == (["good", "bad"] if name == "classifier" else None)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_reward_model_becomes_a_judge(method: str, work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path) -> None:
    from hone.core.types import Message

    folder = tmp_path / "run"
    run(work, wide_model, "rm", files["pair"], folder, f"tuning.method={method}", "optim.learning_rate=0.01")
    opened = open_model(folder)
    talks = [(Message("user", "When?"), Message("assistant", answer)) for answer in ("At six.", "Go away, I have no time for you now.")]
    scores = opened.score(talks)
    assert len(scores) == 2 and scores[0] != scores[1]
    assert opened.score(talks[::-1]) == pytest.approx(scores[::-1], abs=1e-5)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_the_reference_asked_once_or_each_time_is_the_same_run(
    name: str, work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    data = files["pair"]
    for how in ("live", "cached"):
        run(work, wide_model, name, data, tmp_path / how, f"hardware.signals={how}", "optim.learning_rate=0.01")
    live, cached = numbers(tmp_path / "live"), numbers(tmp_path / "cached")
    for key in ("loss", "eval_loss", "eval_accuracy", "grad_norm"):
        assert cached[key] == pytest.approx(live[key], rel=1e-4, abs=1e-6), key


def test_full_tuning_keeps_what_its_reference_said_or_a_copy_of_it(
    work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    for how in ("cached", "live"):
        run(
            work,
            wide_model,
            "dpo",
            files["pair"],
            tmp_path / how,
            "tuning.method=full",
            f"hardware.signals={how}",
            "optim.learning_rate=0.01",
        )
        first = json.loads((tmp_path / how / "metrics.jsonl").read_text().splitlines()[0])
        assert first["eval_loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert (tmp_path / how / "model" / "model.safetensors").is_file()
    live, cached = numbers(tmp_path / "live"), numbers(tmp_path / "cached")
    for key in ("loss", "eval_loss", "grad_norm"):
        assert cached[key] == pytest.approx(live[key], rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("settings", [["objective.beta=0.5"], ["objective.top_k=8", "hardware.signals=cached"]])
def test_distillation(settings: list[str], work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path) -> None:
    run(work, wide_model, "distill", files["single"], tmp_path / "run", f"model.teacher={wide_model}", *settings)
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["eval_divergence"] == pytest.approx(0, abs=1e-4), "a teacher that is the student itself has nothing to teach"


def test_distillation_from_a_teacher_with_other_tokens(work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path) -> None:
    from hone.demo import SEEDLING

    ways = {"cached": ["hardware.signals=cached"], "live": ["hardware.signals=live"]}
    ways["own"] = ["rollout.credit=keep", "rollout.group_size=1", "rollout.sampling.max_new_tokens=8"]
    for name, more in ways.items():
        run(work, wide_model, "uld", files["single"], tmp_path / name, f"model.teacher={SEEDLING}", *more)
        assert 0 < numbers(tmp_path / name)["divergence"] <= 1, name
    live, cached = numbers(tmp_path / "live"), numbers(tmp_path / "cached")
    assert live["loss"] == pytest.approx(cached["loss"], rel=1e-5) and live["grad_norm"] == pytest.approx(cached["grad_norm"], rel=1e-4)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["dpo", "data={single}"], "P004"),
        (["kto", "data={single}"], "P004"),
        (["rm", "data={label}"], "P004"),
        (["prm", "data={pair}"], "P004"),
        (["mpo", "data={pair}", "objective.weights={{aot: 1.0}}"], "C050"),
        (["distill", "data={single}"], "C052"),
        (["distill", "data={single}", "model.teacher={seedling}"], "P007"),
        (["cpt", "data={single}", "optim.embedding_learning_rate=1e-5"], "C053"),
    ],
)
def test_what_cannot_work_is_said_with_its_way_out(
    words: list[str], code: str, work: Work, wide_model: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    from hone.demo import SEEDLING

    log = tmp_path / "log.txt"
    filled = [word.format(**files, seedling=SEEDLING) for word in words]
    status = work(["train", *filled, f"model={wide_model}", f"output={tmp_path / 'run'}", "hardware.dtype=float32"], log=log)
    assert status in (2, 3), log.read_text()
    assert f"{code}" in log.read_text() and "fix" in log.read_text()
