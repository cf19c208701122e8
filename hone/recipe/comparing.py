"""`hone compare`: several runs read from their folders and measured against the first, without loading a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hone.core.errors import HoneError
from hone.eval import answers
from hone.eval.differences import LEVEL, Side, difference, estimate, side
from hone.eval.evaluate import Evaluation
from hone.eval.heldout import HeldOut, recall
from hone.report.comparison import LETTERS, Comparison, Measure, setting_text
from hone.report.folder import RunFolder, read_run
from hone.report.own import OWN

HIDDEN = ("output.", "reasons")
"""Settings that differ in all runs and change nothing."""
WORSE = ("loss", "kl_point", "divergence", "absolute_error", "rejected")
"""Columns of which less is better."""


def compare(folders: Sequence[Path]) -> Comparison:
    """Read runs and compare them. Raises C149 for fewer than two, or more than there are letters; F061 where one is no run."""
    if not 2 <= len(folders) <= len(LETTERS) or len({folder.resolve() for folder in folders}) < len(folders):
        raise HoneError("C149", "hone compare needs two runs or more, each once", where="hone compare", fix="hone compare RUN RUN")
    runs = [read_run(folder) for folder in folders]
    warnings: list[str] = []
    measures = [*_held_out(folders, warnings), *_answered(folders, warnings)]
    warnings += [f"{run.path}: {problem}" for run in runs for problem in run.problems.values()]
    return Comparison(tuple(runs), tuple(_settings(runs)), tuple(measures), tuple(warnings))


def _settings(runs: Sequence[RunFolder]) -> list[tuple[str, tuple[str, ...]]]:
    flat = [_flat(run.resolved) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one if not key.startswith(HIDDEN))
    rows = [(key, tuple(setting_text(one[key]) if key in one else "" for one in flat)) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found


def _held_out(folders: Sequence[Path], warnings: list[str]) -> list[Measure]:
    """The loss and the other numbers of the objective, row by row."""
    held = [recall(folder) for folder in folders]
    known = [one for one in held if one is not None]
    if len(known) < len(held):
        lacking = ", ".join(LETTERS[i] for i, one in enumerate(held) if one is None)
        warnings.append(
            f"{lacking} has no held-out loss for each row: it is not finished, or kept no rows aside. The loss is not compared."
        )
        return []
    same_data = all(_same_rows(*pair) for pair in pairwise(known))
    names = [name for name in known[0].sums if name != "units" and all(name in one.sums for one in known)]
    if any(one.objective != known[0].objective for one in known):
        warnings.append("These runs have different objectives, so their losses are different quantities and are left out.")
        names = [name for name in names if name == "accuracy"]
    if not same_data and names:
        warnings.append(
            "These runs were measured on different held-out rows (or on the same text as other tokens): they are compared as strangers, "
            "which shows large differences only, and not at all whether one set of rows is harder."
        )
    return [
        _measure(_title(name), [_column(one, name) for one in known], name in WORSE, paired=same_data) for name in names if name != "nll"
    ]


def _same_rows(one: HeldOut, other: HeldOut) -> bool:
    return (one.data, one.rows) == (other.data, other.rows)


def _title(name: str) -> str:
    return "held-out loss" if name == "loss" else f"held-out {OWN[name].title.lower()}" if name in OWN else f"held-out {name}"


def _column(one: HeldOut, name: str) -> Side:
    return side((one.column(name), one.column("units")))


def _answered(folders: Sequence[Path], warnings: list[str]) -> list[Measure]:
    """Right answers, task by task, where all runs were asked."""
    told = [answers.recall(folder) for folder in folders]
    known = [one for one in told if one is not None and one.outcomes]
    if len(known) < len(told):
        if known:
            warnings.append("Not all of these runs have answered questions: `hone eval RUN` asks them.")
        return []
    found = []
    for task in dict.fromkeys(outcome.task for outcome in known[0].outcomes):
        found += _task(task, known, warnings)
    return found


def _task(task: str, told: Sequence[Evaluation], warnings: list[str]) -> list[Measure]:
    of_task = [{outcome.key: outcome for outcome in one.outcomes if outcome.task == task} for one in told]
    common = [key for key in of_task[0] if all(key in one for one in of_task)]
    if not all(of_task):
        return []
    if len(common) < max(map(len, of_task)):
        how = f"the {len(common)} that all have" if common else "none in common, so they are compared as strangers"
        warnings.append(f"'{task}': the runs were not asked the same questions; {how}.")
    rows = [[one[key] for key in common or one] for one in of_task]
    metric = answers.metric_of(tuple(rows[0]))
    sides = [side((answers.points(tuple(some)), np.ones(len(some)))) for some in rows]
    return [_measure(f"{task}: {metric.replace('_', ' ')}", sides, lower_is_better=False, paired=bool(common))]


def _measure(title: str, sides: Sequence[Side], lower_is_better: bool, *, paired: bool) -> Measure:
    level = 1 - (1 - LEVEL) / (len(sides) - 1)
    apart = {LETTERS[i]: difference(sides[0], one, level=level, paired=paired) for i, one in enumerate(sides) if i}
    share = all(bool(np.isin(one[:, :, 0], (0.0, 1.0)).all() and (one[:, :, 1] == 1).all()) for one in sides)
    return Measure(title, sides[0].shape[1], share, lower_is_better, tuple(map(estimate, sides)), apart)
