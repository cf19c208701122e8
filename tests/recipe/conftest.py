"""A tiny model in a folder, a small file of data, and a workshop that runs `hone` in forked processes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

WORDS = "harbour baker ship bread lantern rope market clock river apple".split()


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_qwen3: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_qwen3().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty conversations whose answer repeats a word of the question."""
    rng = random.Random(0)
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    with path.open("w") as file:
        for i in range(60):
            said = " ".join(rng.choices(WORDS, k=rng.randint(2, 8)))
            talk = [{"role": "user", "content": f"{i}: {said}"}, {"role": "assistant", "content": said.split()[0]}]
            file.write(json.dumps({"messages": talk}) + "\n")
    return path
