"""What a run's model makes of each row that was kept aside, beside the run: two runs can then be compared row by row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hone.core.files import write_atomically

FILE = "held_out.json"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Sums of an objective over each held-out group, in the order of the data."""

    step: int
    """Of the weights that were asked."""
    steps: int
    """Of the whole run."""
    objective: Mapping[str, Any]
    """Its name and settings: losses of different ones are different quantities."""
    data: str
    """SHA-256 of the rows as tokens; the same rows under the same template and limits have the same."""
    rows: tuple[str, ...]
    """Where each comes from."""
    sums: Mapping[str, tuple[float, ...]]
    """By name: "units", which is what the others are divided by, "loss", and whatever the objective reports."""

    def column(self, name: str) -> NDArray[np.float64]:
        return np.array(self.sums[name], dtype=np.float64)

    def mean(self, name: str = "loss") -> float:
        """A sum over all rows for each unit."""
        return float(self.column(name).sum() / self.column("units").sum())

    def save(self, folder: Path) -> None:
        write_atomically(folder / FILE, json.dumps(asdict(self), ensure_ascii=False))


def recall(folder: Path) -> HeldOut | None:
    """What a run has written; None for one that kept nothing aside, or is older than this file."""
    if not (folder / FILE).is_file():
        return None
    saved = json.loads((folder / FILE).read_text("utf-8"))
    sums = {name: tuple(values) for name, values in saved["sums"].items()}
    return HeldOut(saved["step"], saved["steps"], saved["objective"], saved["data"], tuple(saved["rows"]), sums)
