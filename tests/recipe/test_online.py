"""`hone train` where the model writes what it learns from: it runs, tells, and a killed run ends as the one that never was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.recipe.opening import open_model
from tests.conftest import Work
from tests.recipe.test_kills import metrics, state


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions with an answer, and a reward of our own that even a random model can earn a part of."""
    folder = tmp_path_factory.mktemp("prompts")
    rows = [{"prompt": f"How many are {i} and {i + 3}?", "answer": str(2 * i + 3)} for i in range(24)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.py").write_text("def vowels(answer, row):\n    return sum(c in 'aeiou' for c in answer) / max(1, len(answer))\n")
    return folder


def words(source: str, model: Path, prompts: Path, folder: Path, *more: str) -> list[str]:
    settings = {
        "model": model, "rollout.prompts": prompts / "prompts.jsonl", "output": folder, "output.save_every": 1, "output.keep": 2, "eval.every": 2,
        "rollout.rewards": f"[number, '{prompts / 'own.py'}:vowels']", "rollout.group_size": 2, "rollout.sampling.max_new_tokens": 8,
        "optim.learning_rate": 0.01, "optim.batch_size": 2, "optim.max_steps": 4, "tuning.rank": 4, "tuning.dropout": 0.1,
        "hardware.token_budget": 200, "hardware.dtype": "float32", "hardware.threads": 1,
    }  # fmt: skip
    return ["train", source, *(f"{key}={value}" for key, value in settings.items()), *more]


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in found if event["kind"] == kind]


CASES: dict[str, tuple[str, list[str], list[str]]] = {
    "grpo": ("grpo", [], ["mid_step 2", "after_step 3"]),
    "grpo ahead": ("grpo", ["rollout.ahead=1"], ["mid_step 3", "before_rename 2"]),
    "ppo": ("ppo", ["rollout.kl=0.05"], ["mid_step 2", "after_step 3"]),
    "online dpo": ("online_dpo", ["rollout.group_size=3"], []),
}


@pytest.mark.parametrize("case", CASES)
def test_it_runs_tells_and_resumes_to_the_bit(case: str, work: Work, model_folder: Path, prompts: Path, tmp_path: Path) -> None:
    source, more, faults = CASES[case]
    golden, log = tmp_path / "golden", tmp_path / "log.txt"
    assert work(words(source, model_folder, prompts, golden, *more), log=log) == 0, log.read_text()
    told = [line for line in metrics(golden) if "reward" in line]
    assert len(told) == 4 and all({"reward/number", "reward/vowels", "answer_tokens", "lag"} <= line.keys() for line in told)
    assert [line for line in metrics(golden) if "eval_reward" in line]
    shown = events(golden, "rollout")[0]
    assert (shown["prompt"][0]["role"] == "user" and len(shown["answers"]) >= 1) or source == "ppo"
    assert "prompts" in (golden / "recipe.yaml").read_text() and (golden / "report.html").stat().st_size > 0
    folder = tmp_path / "killed"
    for fault in faults:
        assert work(words(source, model_folder, prompts, folder, *more), fault=fault, log=log) == -9, log.read_text()
    if faults:
        assert work(words(source, model_folder, prompts, folder, *more), log=log) == 0, log.read_text()
        assert state(folder) == state(golden) and metrics(folder) == metrics(golden)
    assert open_model(golden).folder == golden


def test_full_tuning_is_leashed_to_a_copy_of_what_it_was(work: Work, model_folder: Path, prompts: Path, tmp_path: Path) -> None:
    log, folder = tmp_path / "log.txt", tmp_path / "run"
    full = [w for w in words("rloo", model_folder, prompts, folder, "tuning=full", "objective.kl=0.1") if not w.startswith("tuning.")]
    assert work(full, log=log) == 0, log.read_text()
    drift = [line["kl"] for line in metrics(folder) if "kl" in line]
    assert drift[0] == pytest.approx(0, abs=1e-6) and drift[-1] > 1e-5, "it leaves where it was, and that is seen"
