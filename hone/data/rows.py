"""What a source gives: rows, rows that could not be read, and remarks about the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hone.core.errors import HoneError
from hone.core.types import Origin


class Row(NamedTuple):
    """One row of a source, as it was written. JSON lines are counted by their line, everything else from 1."""

    origin: Origin
    columns: Mapping[str, Any]


class Bad(NamedTuple):
    """One row that could not be read, and why."""

    origin: Origin
    error: HoneError


class Remark(NamedTuple):
    """Something about a source that a person should know, and that stops nothing."""

    source: str
    text: str


Item = Row | Bad | Remark
