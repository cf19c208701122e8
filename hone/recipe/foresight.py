"""`hone forecast`: what a run's held-out loss will be at its end, and what more data would give where that can be known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hone.core.errors import HoneError
from hone.core.estimates import Estimate
from hone.eval.curves import EARLIEST, expected, more_data
from hone.eval.heldout import recall
from hone.report.fates import read_fates
from hone.report.folder import RunFolder, read_run, record
from hone.report.numbers import finite, loss_text

FREE = ("train", "held_out")
"""Settings of the data in which runs on different amounts of it differ."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What can be said of one run."""

    step: int
    total: int
    now: float
    end: Estimate | None

    def __str__(self) -> str:
        if self.step >= self.total:
            return f"finished: held-out loss {loss_text(self.now)}"
        at = f"step {self.step:,} of {self.total:,}: held-out loss {loss_text(self.now)}"
        if self.end is None:
            return f"{at}; what it will be can be told after {100 * EARLIEST:.0f} % of the steps and two evaluations"
        return f"{at}, at the end about {text(self.end)}"


def text(found: Estimate) -> str:
    """A value with its interval."""
    return f"{loss_text(found.value)} ({loss_text(found.low)} to {loss_text(found.high)}, 80 %)"


def outlook(run: RunFolder, total: int | None = None) -> Outlook:
    """What a run's folder tells of its end. Raises C150 for a run without held-out losses or of unknown length."""
    held_out = run.series("eval_loss")
    total = total or total_of(run)
    if not held_out or total is None:
        fix = "keep rows aside with data.held_out=0.1, and let the run make its first steps"
        raise HoneError("C150", "this run has no held-out loss to go by", where=str(run.path), fix=fix)
    return Outlook(int(held_out[-1][0]), total, held_out[-1][1], expected(held_out, run.series("loss"), total))


def total_of(run: RunFolder) -> int | None:
    """How many steps a run has in all, by its settings and by how far a step goes in an epoch."""
    optim = run.section("optim")
    if optim.get("max_steps") is not None:
        return int(optim["max_steps"])
    epochs, last = finite(optim.get("epochs")), run.steps[-1] if run.steps else {}
    epoch = finite(last.get("epoch"))
    return round(epochs * last["step"] / epoch) if epochs and epoch else None


def twice(folders: Sequence[Path]) -> tuple[int, Estimate]:
    """(rows, the loss expected with so many): twice the most data of runs that differ in nothing else.

    Raises C151 where that cannot be known: fewer than three amounts, or runs that differ in more, or in what they are measured on.
    """
    runs = [read_run(folder) for folder in folders]
    points = [(float(rows_of(run)), run.series("eval_loss")[-1][1]) for run in runs if run.series("eval_loss")]
    if len({rows for rows, _ in points}) < 3:
        raise HoneError(
            "C151", f"{len(points)} run says nothing about more data" if len(points) == 1 else "these are too few amounts of data", fix=HOW
        )
    if len({_likeness(run) for run in runs}) > 1:
        raise HoneError("C151", "these runs differ in more than their amount of data", where="hone forecast", fix=HOW)
    rows = 2 * int(max(points)[0])
    found = more_data(points, rows)
    assert found is not None, "three amounts were counted"
    return rows, found


HOW = (
    "train on a quarter, a half and all of the rows, measured on one held-out file, and name the three: "
    "data.train='[{path: FILE, weight: 0.25}]' data.held_out=OTHER"
)


def rows_of(run: RunFolder) -> int:
    """How many rows a run learned from."""
    fates = read_fates(run.ledger)
    return fates.rows("trained") + fates.rows("truncated") if fates is not None else 0


def _likeness(run: RunFolder) -> str:
    """All settings but where the rows and the output lie; and what the run is measured on."""
    shown = {name: dict(record(values)) for name, values in run.resolved.items() if name not in ("output", "reasons", "eval", "hardware")}
    measured = recall(run.path)
    aside = measured.data if measured is not None else record(shown.get("data")).get("held_out")
    shown["data"] = {key: value for key, value in record(shown.get("data")).items() if key not in FREE}
    return repr((shown, run.resolved.get("seed"), aside))
