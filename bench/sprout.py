"""Grows the sprout, a quarter of a million parameters that know the town's prose: small enough that hundreds of runs are affordable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import Qwen3Config, Qwen3ForCausalLM

from hone.demo import SEEDLING, Town
from hone.recipe.run import Wishes, prepare_run, train_run

SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
STEPS = 400


def sprout(folder: Path) -> Path:
    """The model's folder; grown where it is not there yet."""
    if not (folder / "run" / "model").is_dir():
        _seed(folder / "seed")
        texts = [{"text": document.text} for document in Town(seed=7).documents(shares={"trade": 0.3})[:4000]]
        (folder / "prose.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
        raw: dict[str, Any] = {
            "model": {"name": str(folder / "seed")},
            "data": {"train": str(folder / "prose.jsonl"), "held_out": 0.01, "max_length": 256},
            "tuning": {"method": "full"},
            "objective": {"name": "cpt"},
            "optim": {"learning_rate": 6e-3, "batch_size": 16, "max_steps": STEPS, "schedule": "cosine"},
            "eval": {"every": STEPS // 2},
            "output": {"folder": str(folder / "run"), "save_every": 10 * STEPS},
            "hardware": {"token_budget": 4096, "threads": 1, "dtype": "float32"},
        }
        train_run(prepare_run(raw, Console(quiet=True)), Wishes(fresh=True))
        shutil.rmtree(folder / "run" / "checkpoints", ignore_errors=True)
    return folder / "run" / "model"


def _seed(folder: Path) -> None:
    """Random weights of the sprout's shape, with the seedling's tokenizer."""
    config = Qwen3Config.from_pretrained(SEEDLING)
    config.update(SHAPE | {"layer_types": ["full_attention"] * 2})
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).float().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SEEDLING / name, folder / name)
