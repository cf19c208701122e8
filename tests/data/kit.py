"""What the tests of data share: writing files, and asking for a fault."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError, catalogue


class Caught:
    """The fault that a block raised."""

    error: HoneError


@contextmanager
def fault(code: str, *, where: str = "", fix: str = "", what: str = ""):
    """Expects a fault with this code, that says where it is and how to mend it, and that `hone explain` knows."""
    caught = Caught()
    with pytest.raises(HoneError) as raised:
        yield caught
    caught.error = raised.value
    told(raised.value, code, where=where, fix=fix, what=what)


def told(error: HoneError | None, code: str, *, where: str = "", fix: str = "", what: str = "") -> None:
    """Checks a fault."""
    assert error is not None
    assert error.code == code, error
    assert error.code in catalogue()
    assert error.where, "it does not say where"
    assert error.fix, "it does not say how to mend it"
    assert where in error.where
    assert fix in error.fix
    assert what in error.what


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """Rows as JSON lines; packed where the name ends in .gz."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def chat(*said: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages from what user and assistant say in turn."""
    head = [] if system is None else [{"role": "system", "content": system}]
    return head + [{"role": ("user", "assistant")[i % 2], "content": one} for i, one in enumerate(said)]


def asked(rows: int, **more: Any) -> list[Mapping[str, Any]]:
    """Different small rows of question and answer."""
    return [{"question": f"What is the number after {i}?", "answer": f"It is {i + 1}."} | more for i in range(rows)]
