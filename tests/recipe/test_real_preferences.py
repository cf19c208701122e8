"""Real preferences and rewards through the whole of a run: every row has a fate, and held-out accuracy is reported.

Three steps of a tiny model show that it runs, not that it learns: of the rewarded turns, 80 % are wanted in training and 55 % held out.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from hone.recipe.opening import open_model
from tests.conftest import Work

SHORT = {
    "optim.max_steps": 3, "optim.batch_size": 4, "eval.every": 3, "eval.max_rows": 16, "data.max_length": 512, "data.held_out": 0.1,
    "hardware.dtype": "float32", "hardware.threads": 1, "tuning.rank": 8,
}  # fmt: skip


def trained(work: Work, objective: str, model: Path, data: Path, folder: Path) -> dict[str, list[float]]:
    log = folder.with_suffix(".log")
    words = [f"{key}={value}" for key, value in {"model": model, "data": data, "output": folder, **SHORT}.items()]
    assert work(["train", objective, "--skip-bad", *words], log=log) == 0, log.read_text()
    ledger = json.loads((folder / "ledger.json").read_text())
    kinds = ("trained", "held_out", "truncated", "masked", "dropped")
    assert ledger["total"] == sum(ledger[kind]["rows"] for kind in kinds) > 300
    card = (folder / "README.md").read_text()
    assert "Accuracy:" in card and "Held-out accuracy" in (folder / "report.html").read_text()
    found: dict[str, list[float]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        for key, value in json.loads(line).items():
            found.setdefault(key, []).append(value)
    return found


def test_dpo_on_harmless_dialogues(work: Work, shared: Path, tmp_path: Path) -> None:
    with gzip.open(shared / "data/hh_rlhf_harmless_test/pairs.jsonl.gz", "rt") as file:
        rows = [line for line in file if len(line) < 900][:320]
    (tmp_path / "pairs.jsonl").write_text("".join(rows))
    found = trained(work, "dpo", shared / "weights/stories260k", tmp_path / "pairs.jsonl", tmp_path / "run")
    assert found["eval_loss"][0] == pytest.approx(0.6931, abs=1e-3)
    assert found["loss"][-1] < 0.72 and 0 <= found["eval_accuracy"][-1] <= 1


def coffee(shared: Path) -> list[dict[str, Any]]:
    """The shorter turns at the till, each rewarded or not."""
    rows = []
    for file in sorted((shared / "data/taskmaster4_reward/reward").glob("reward_0[0-3].json.gz")):
        for turn in json.loads(gzip.decompress(file.read_bytes())):
            said = " | ".join(
                str(each.get("text") or each.get("api") or each.get("response"))[:80] for each in json.loads(turn["context"])[-3:]
            )
            rows.append({"prompt": said[:160], "completion": turn["generation"][:120], "label": turn["reward"] > 0.5})
    return rows[:320]


@pytest.mark.parametrize("objective", ["kto", "pointwise_rm"])
def test_rewarded_turns(objective: str, work: Work, shared: Path, tmp_path: Path) -> None:
    rows = coffee(shared)
    assert 0 < sum(row["label"] for row in rows) < len(rows)
    (tmp_path / "turns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = trained(work, objective, shared / "weights/stories260k", tmp_path / "turns.jsonl", tmp_path / "run")
    assert found["eval_loss"][0] == pytest.approx(0.5 if objective == "kto" else 0.6931, abs=1e-3)
    assert 0 <= found["eval_accuracy"][-1] <= 1 and math.isfinite(found["eval_loss"][-1])
    if objective == "pointwise_rm":
        assert "score" in open_model(tmp_path / "run").policy.heads
