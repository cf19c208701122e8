"""A whole run folder, small and fixed, for looking at from every side."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROMPT = "When does the ropemaker open?"
EVENTS: list[dict[str, Any]] = [
    {
        "t": 1000.0,
        "kind": "started",
        "total_steps": 40,
        "parameters": 6_000_000,
        "trainable": 300_000,
        "base_fingerprint": "b3f1c2",
        "license": "apache-2.0",
        "data": [{"source": "town/rows.jsonl", "rows": 100, "sha256": "9f2c" * 16}, {"source": "tatsu-lab/alpaca", "rows": 20}],
        "command": "hone train sft model=acme/base-1 data=/home/someone/town/rows.jsonl",
        "environment": {"hone": "0.1.0", "torch": "2.13.0", "device": "CPU, 2 threads"},
    },
    {"t": 1002.0, "kind": "sample", "step": 1, "prompt": PROMPT, "answer": "rope rope rope"},
    {"t": 1010.0, "kind": "checkpoint", "step": 10},
    {"t": 1020.0, "kind": "checkpoint", "step": 20},
    {"t": 1021.0, "kind": "stopped", "step": 21, "reason": "asked to stop"},
    {"t": 5000.0, "kind": "resumed", "step": 20},
    {"t": 5004.0, "kind": "skipped_step", "code": "F010", "step": 25, "what": "the loss was not finite", "rows": ["town/rows.jsonl:7"]},
    {"t": 5005.0, "kind": "sample", "step": 30, "prompt": PROMPT, "answer": "It opens at 7:30."},
    {"t": 5006.0, "kind": "warning", "code": "F026", "what": "the tracker wandb failed and is switched off"},
    {"t": 5010.0, "kind": "finished", "step": 40},
]
RESOLVED = {
    "model": {"name": "acme/base-1", "dtype": "bfloat16"},
    "tuning": {"method": "lora", "rank": 16, "alpha": 32.0},
    "data": {"train": "/home/someone/town/rows.jsonl", "max_length": 2048},
    "objective": {"name": "sft"},
    "optim": {"learning_rate": 2e-4, "epochs": 3.0},
    "seed": 42,
    "reasons": {"tuning.rank": "120 rows, small model"},
}
EVALUATION = {
    "tasks": [
        {
            "task": "facts",
            "metric": "exact_match",
            "n": 80,
            "before": {"value": 0.0125, "low": 0.002, "high": 0.067},
            "after": {"value": 0.9375, "low": 0.862, "high": 0.973},
        },
        {
            "task": "till",
            "metric": "exact_match",
            "n": 60,
            "before": {"value": 0.05, "low": 0.017, "high": 0.137},
            "after": {"value": 0.85, "low": 0.739, "high": 0.919},
        },
    ],
    "samples": [{"task": "facts", "prompt": PROMPT, "expected": "It opens at 7:30.", "before": "rope rope", "after": "It opens at 7:30."}],
    "stopped": {"before": 0.1, "after": 1.0},
}
LEDGER = {"total": 120, "trained": {"rows": 100, "tokens": 9000}, "dropped": {"rows": 20, "reasons": {"D020 no messages": 20}}}


def metrics() -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, 41):
        if step == 1 or step % 10 == 0:
            lines.append({"step": step, "eval_loss": 0.5 + 2 * math.exp(-step / 10), "eval_perplexity": 2.0})
        line = {"step": step, "loss": 0.4 + 2 * math.exp(-step / 10), "grad_norm": 1.0, "learning_rate": 2e-4 * (1 - step / 40)}
        line |= {"tokens": 1000 * step, "tokens_per_second": 5000.0 + step, "seconds": 0.2, "memory_bytes": 600_000_000}
        lines.append(line | ({"loss": None} if step == 25 else {}))
    return lines


def lines(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run folder. A file named in `files` gets this text instead of the usual one, or is left out if None."""

    def make(name: str = "town-run", **files: str | None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        usual = {
            "resolved.json": json.dumps(RESOLVED),
            "metrics.jsonl": lines(metrics()),
            "events.jsonl": lines(EVENTS),
            "evaluation.json": json.dumps(EVALUATION),
            "ledger.json": json.dumps(LEDGER),
        }
        for file, text in (usual | {key.replace("__", "."): text for key, text in files.items()}).items():
            if text is not None:
                (folder / file).write_text(text, "utf-8")
        return folder

    return make
