"""A tiny model in a folder, a small file of data, and a workshop that runs `hone` in forked processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Work = Callable[..., int]
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


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """`work(words, fault="", kill_after=None, log=None)` runs `hone words...` and returns how it ended."""
    logs = tmp_path_factory.mktemp("logs")
    shop = subprocess.Popen(
        [sys.executable, "-m", "tests.recipe.workshop"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )

    def run(words: list[str], *, fault: str = "", kill_after: float | None = None, log: Path | None = None) -> int:
        assert shop.stdin is not None and shop.stdout is not None
        order = {"words": words, "fault": fault, "kill_after": kill_after, "log": str(log or logs / "last.txt")}
        print(json.dumps(order), file=shop.stdin, flush=True)
        answer = shop.stdout.readline()
        assert answer, "the workshop has died"
        return int(answer)

    yield run
    assert shop.stdin is not None
    shop.stdin.close()
    shop.wait(timeout=60)
    if shop.stdout is not None:
        shop.stdout.close()
