"""The model that comes with the package fits the town's questions."""

from __future__ import annotations

import json

from transformers import AutoTokenizer

from hone.demo import SEEDLING, Town
from hone.demo.run import LONGEST_ANSWER

MEGABYTES = 16


def test_every_right_answer_fits_the_limit_of_the_demo() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SEEDLING)
    rows = [row for split in ("train", "held_out") for row in Town().instructions(split)]
    said = [m["content"] for row in rows for m in row["messages"] if m["role"] == "assistant"]
    answers = [text + tokenizer.eos_token for text in said]
    assert max(len(ids) for ids in tokenizer(answers)["input_ids"]) < LONGEST_ANSWER


def test_it_is_small_and_tells_how_it_grew() -> None:
    assert (SEEDLING / "model.safetensors").stat().st_size < MEGABYTES * 2**20
    stages = json.loads((SEEDLING / "growth.json").read_text("utf-8"))
    card = (SEEDLING / "README.md").read_text("utf-8")
    assert f"{sum(stage['tokens'] for stage in stages):,} tokens in {len(stages)} stages" in card
    assert all(stage["command"] in card for stage in stages)
    assert f"**{stages[-1]['curve'][-1][2]:.3f} bits per byte**" in card
