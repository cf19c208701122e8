"""Tuned tiny models that the tests of exports share; each is made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.export.kit import make_base, tune

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def words(tiny_tokenizer: PreTrainedTokenizerFast) -> Any:
    return tiny_tokenizer


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory, words: Any) -> Callable[[str], Path]:
    """`base_of(family)`: the folder of a random base."""
    root = tmp_path_factory.mktemp("bases")
    return cache(lambda family: make_base(root / family, family, words))


@pytest.fixture(scope="session")
def tuned_of(tmp_path_factory: pytest.TempPathFactory, base_of: Callable[[str], Path]) -> Callable[..., Path]:
    """`tuned_of(family, method)`: a folder with what a run leaves: adapter/ or model/, and the certificate."""
    root = tmp_path_factory.mktemp("tuned")

    @cache
    def make(family: str, method: str = "lora") -> Path:
        folder = root / f"{family}-{method}"
        tune(base_of(family), folder, method)
        return folder

    return make
