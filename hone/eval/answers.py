"""The answers of a run to its questions, each with its scores, beside the run: two runs can then be compared question by question."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hone.core.files import write_atomically
from hone.eval.evaluate import ACCURACY, Evaluation, Outcome

FILE = "answers.json"


def save(folder: Path, evaluation: Evaluation) -> None:
    """Keep an evaluation in a run folder."""
    write_atomically(folder / FILE, json.dumps(evaluation.to_json(), ensure_ascii=False))


def recall(folder: Path) -> Evaluation | None:
    """The evaluation that a run folder holds, if any."""
    return Evaluation.of_json(json.loads((folder / FILE).read_text("utf-8"))) if (folder / FILE).is_file() else None


def metric_of(outcomes: tuple[Outcome, ...]) -> str:
    """What is counted where one number shall stand for all: being right about a label, else the first grader; "" without answers."""
    names = list(outcomes[0].scores) if outcomes else []
    return ACCURACY if ACCURACY in names else (names or [""])[0]


def points(outcomes: tuple[Outcome, ...]) -> NDArray[np.float64]:
    """One number for each question."""
    return np.array([one.scores.get(metric_of((one,)), 0.0) for one in outcomes], dtype=np.float64)
