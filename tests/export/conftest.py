"""Tuned tiny models that the tests of exports share; each is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hone.demo import SEEDLING
from tests.export.kit import make_base, tune

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def words(tiny_tokenizer: PreTrainedTokenizerFast) -> Any:
    return tiny_tokenizer


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory, words: Any, request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """`base_of(family)`: the folder of a random base; or the seedling, or a small SentencePiece model ("stories260k")."""
    root = tmp_path_factory.mktemp("bases")

    @cache
    def make(family: str) -> Path:
        if family == "seedling":
            return SEEDLING
        return (
            request.getfixturevalue("shared") / "weights" / family if family == "stories260k" else make_base(root / family, family, words)
        )

    return make


@pytest.fixture(scope="session")
def tuned_of(tmp_path_factory: pytest.TempPathFactory, base_of: Callable[[str], Path]) -> Callable[..., Path]:
    """`tuned_of(family, method, **settings)`: a folder with what a run leaves: adapter/ or model/, and the certificate."""
    root = tmp_path_factory.mktemp("tuned")

    @cache
    def make(family: str, method: str = "lora", **settings: Any) -> Path:
        folder = root / "-".join([family, method, *("_".join(value) for value in settings.values())])
        tune(base_of(family), folder, method, **settings)
        return folder

    return make
