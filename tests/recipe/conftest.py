"""A small file of data whose answers can be learned."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

WORDS = "harbour baker ship bread lantern rope market clock river apple".split()


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
