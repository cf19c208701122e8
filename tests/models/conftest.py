"""Fixtures of this room: every test gets its own copy of a tiny model, free to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny_models import make_model


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


@pytest.fixture
def copy_of(originals: Path, tmp_path: Path) -> Callable[..., Path]:
    """copy_of("llama") is a fresh folder with that model."""

    def copy(family: str = "llama", name: str = "model", **changes: Any) -> Path:
        original = originals / "-".join([family, *(f"{key}-{value}" for key, value in sorted(changes.items()))])
        if not original.exists():
            make_model(original, family, **changes)
        return Path(shutil.copytree(original, tmp_path / name))

    return copy
