"""The run's diary: every event and every metric as one JSON line, flushed at once, so that a kill loses nothing."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hone.core.files import write_atomically

BY_STEP = ("metrics.jsonl", "rows.jsonl")
"""Files whose every line belongs to a step."""


class Events:
    """`events.jsonl`, `metrics.jsonl` and `rows.jsonl` of a run folder. Without a folder it keeps quiet (other ranks, examples)."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def emit(self, kind: str, **fields: Any) -> None:
        """Append an event: {"t": seconds since the epoch, "kind": kind, ...}."""
        self._append("events.jsonl", {"t": round(time.time(), 3), "kind": kind, **fields})

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of one step; a number that is not finite becomes null, as JSON has none."""
        clean = {key: value if math.isfinite(value) else None for key, value in values.items()}
        self._append("metrics.jsonl", {"step": step, **clean})

    def rows(self, step: int, losses: Sequence[float], **about: Sequence[str | int]) -> None:
        """Append the loss of each held-out row; what else is known of them, once, with the first line."""
        clean = [round(loss, 4) if math.isfinite(loss) else None for loss in losses]
        self._append("rows.jsonl", {"step": step, **about, "loss": clean})

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        if self.folder is not None:
            path = self.folder / name
            torn = path.exists() and path.stat().st_size > 0 and not _ends_line(path)
            with path.open("a", encoding="utf-8") as file:
                file.write(("\n" if torn else "") + json.dumps(record, ensure_ascii=False) + "\n")

    def rewind(self, step: int) -> None:
        """Forget what was measured after a step: a resumed run measures it again, so the files read as if it never stopped."""
        for path in (self.folder / name for name in BY_STEP) if self.folder is not None else ():
            if path.exists():
                kept = [line for line in path.read_text("utf-8").splitlines() if _step_of(line) <= step]
                write_atomically(path, "".join(line + "\n" for line in kept))


def _ends_line(path: Path) -> bool:
    """A kill in the middle of an append leaves half a line, which the next record must not join."""
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _step_of(line: str) -> float:
    """The step of a metrics line; a line cut short by a kill belongs to no step."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf
