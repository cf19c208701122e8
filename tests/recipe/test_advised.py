"""Before training it is found out whether the frozen head can say the end of an answer, and what becomes of it if not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from hone.demo import SEEDLING, Town
from hone.recipe.run import Run, prepare_run
from hone.recipe.words import read
from hone.tuning.rows import Rows

END = "<|im_end|>"


def prepared(data: Path, *words: str) -> Run:
    raw, _ = read("sft", [f"model={SEEDLING}", f"data={data}", "hardware.dtype=float32", "optim.max_steps=1", *words])
    return prepare_run(raw, Console(quiet=True))


def warned(run: Run) -> bool:
    return any(notice.code == "M102" for notice in run.prepared.notices)


def test_the_row_of_a_mark_that_the_base_never_learned_moves_by_itself(data_file: Path) -> None:
    run = prepared(data_file)
    assert run.recipe.resolved["tuning"]["tokens"][0] == END and END in run.recipe.resolved["reasons"]["tuning.tokens"]
    assert any(name.endswith("rows") for name in run.policy.trainable()) and not warned(run)


@pytest.mark.parametrize("words", [("tuning=ia3",), ('tuning.targets=["q_proj","embed_tokens"]',), ("tuning.train=[embed_tokens]",)])
def test_where_it_cannot_move_that_is_said(words: tuple[str, ...], data_file: Path) -> None:
    run = prepared(data_file, *words)
    assert warned(run) and not any(name.endswith("rows") for name in run.policy.trainable())


@pytest.mark.parametrize("words", [("tuning=full",), ("tuning.tokens=[]",), ("tuning.train=[lm_head]",)])
def test_what_moves_anyway_or_was_decided_is_left_alone(words: tuple[str, ...], data_file: Path) -> None:
    run = prepared(data_file, *words)
    assert not warned(run) and not any(name.endswith("rows") for name in run.policy.trainable())


def test_pieces_of_words_that_the_base_never_read_move_too(tmp_path: Path) -> None:
    data = tmp_path / "polite.jsonl"
    rows = [{"messages": [*row["prompt"], *row["chosen"]]} for row in list(Town().preferences("train"))[:8]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = prepared(data, "data.held_out=0")
    known = {text: run.loaded.tokenizer.convert_tokens_to_ids(text) for text in (END, "vice", "se")}
    moving = run.recipe.resolved["tuning"]["tokens"]
    assert [known.get(token, token) for token in moving] == [*known.values()]
    rows = next(module for module in run.policy.model.modules() if isinstance(module, Rows))
    assert rows.get_buffer("tokens").tolist() == [*known.values()]
