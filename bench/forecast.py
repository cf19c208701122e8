"""Back-test of the learning-curve forecast: at several points of stored runs, does the 80 % interval hold the loss that came?

`python -m bench.forecast` makes about thirty short runs of the seedling (methods, rates, amounts of data; about twenty minutes on
one core). `--runs FOLDER` takes all runs under a folder instead, `--curves FILE` the curves of an earlier result. `--fit FOLDER`
names runs to find the weights of `hone.eval.curves` anew; coverage is reported for all the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import ROOT, machine, save, table
from hone.eval.curves import REMAINING, Point, expected, features

SHARES = (1 / 6, 0.2, 0.25, 1 / 3, 0.4, 0.5, 2 / 3, 0.75, 5 / 6)
BANDS = ((0.0, 0.2), (0.2, 0.35), (0.35, 0.6), (0.6, 1.0))
LEAST = 5
"""Evaluations that a run must have."""
Curve = dict[str, Any]
"""name, held_out and training: lists of (step, loss)."""


def read(folder: Path) -> Curve | None:
    """The curve of a stored run; None for one with too few evaluations."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines() if line.endswith("}")]
    held_out = sorted({line["step"]: line["eval_loss"] for line in lines if line.get("eval_loss") is not None}.items())
    training = sorted({line["step"]: line["loss"] for line in lines if line.get("loss") is not None}.items())
    enough = len(held_out) >= LEAST and min(loss for _, loss in held_out) > 0
    return {"name": str(folder), "held_out": held_out, "training": training} if enough else None


def moments(curves: Iterable[Curve]) -> list[dict[str, Any]]:
    """Every point of every curve at which a forecast is made, with what came."""
    found = []
    for curve in curves:
        held_out: list[Point] = [tuple(point) for point in curve["held_out"]]
        total, seen = held_out[-1][0], set()
        for share in SHARES:
            known = [point for point in held_out if point[0] <= share * total + 1e-9]
            past = [tuple(point) for point in curve["training"] if known and point[0] <= known[-1][0]]
            if len(known) < 2 or known[-1][0] in seen or known[-1][0] >= total or features(known, past, total) is None:
                continue
            seen.add(known[-1][0])
            found.append({"known": known, "past": past, "total": total, "came": held_out[-1][1], "share": known[-1][0] / total})
    return found


def coverage(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the interval held what came, how far the middle was off, and how far "it stays as it is" would have been."""
    rows = [(moment, expected(moment["known"], moment["past"], moment["total"])) for moment in found]
    told = [(moment, end) for moment, end in rows if end is not None]
    return {
        "forecasts": len(told),
        "coverage": statistics.mean(end.low <= moment["came"] <= end.high for moment, end in told),
        "median_error": statistics.median(abs(end.value - moment["came"]) for moment, end in told),
        "median_error_of_no_change": statistics.median(abs(moment["known"][-1][1] - moment["came"]) for moment, _ in told),
        "median_width": statistics.median(end.high - end.low for _, end in told),
    }


def fit(found: Sequence[dict[str, Any]], quantile: float) -> list[float]:
    """Weights of the quantile regression, by reweighted least squares on what the loss still fell by, as a share of its size."""
    rows = np.array([features(moment["known"], moment["past"], moment["total"]) for moment in found])
    came = np.array([moment["known"][-1][1] - moment["came"] for moment in found])
    size = np.array([abs(moment["known"][0][1] - moment["known"][-1][1]) + 0.05 * moment["known"][-1][1] for moment in found])
    rows, came = rows / size[:, None], came / size
    weights, *_ = np.linalg.lstsq(rows, came, rcond=None)
    for _ in range(400):
        error = came - rows @ weights
        pull = np.where(error > 0, quantile, 1 - quantile) / np.maximum(np.abs(error), 1e-3)
        weights = np.linalg.solve((rows * pull[:, None]).T @ rows + 1e-9 * np.eye(3), (rows * pull[:, None]).T @ came)
    return [round(float(weight), 4) for weight in weights]


def recipes(place: Path, files: dict[str, Path]) -> list[dict[str, Any]]:
    """About thirty short runs: methods, rates, ranks, schedules and amounts of data."""
    lora = [{"method": "lora", "rank": 4}, {"method": "lora", "rank": 16}]
    methods: list[dict[str, Any]] = [*lora, {"method": "full"}, {"method": "dora", "rank": 8}, {"method": "ia3"}]
    rates = {"full": (1e-4, 4e-4, 2e-3), "ia3": (3e-3, 1e-2, 3e-2)}
    made = []
    for i, tuning in enumerate(methods):
        for rate in rates.get(str(tuning["method"]), (4e-4, 2e-3, 8e-3)):
            for weight in (0.3, 1.0):
                made.append(
                    {
                        "model": {"name": str(ROOT / "hone" / "demo" / "seedling")}, "tuning": tuning, "seed": i,
                        "data": {"train": [{"path": str(files["train"]), "weight": weight}], "held_out": str(files["held_out"])},
                        "optim": {"learning_rate": rate, "max_steps": 48, "schedule": ("linear", "cosine", "constant")[len(made) % 3]},
                        "eval": {"every": 4, "max_rows": 64}, "output": {"folder": str(place / str(len(made))), "save_every": 48},
                        "hardware": {"threads": 1, "dtype": "float32"},
                    }
                )  # fmt: skip
    return made


def make(place: Path) -> list[Curve]:
    """Train them and read their curves."""
    from rich.console import Console

    from hone.demo.run import write_data
    from hone.recipe.run import Wishes, prepare_run, train_run
    from hone.recipe.stores import Stores

    quiet, stores, found = Console(quiet=True, force_terminal=False), Stores(shared=True), []
    for raw in recipes(place, write_data(place / "data")):
        run = prepare_run(raw, quiet, stores)
        assert train_run(run, Wishes()) == 0
        curve = read(run.folder)
        found += [curve | {"name": f"{raw['tuning']} {raw['optim']['learning_rate']:g}"}] if curve else []
    return found


def stored(folders: Iterable[Path]) -> list[Curve]:
    """The curves of all runs under some folders."""
    runs = sorted({file.parent for folder in folders for file in folder.rglob("metrics.jsonl")})
    return [curve for run in runs if (curve := read(run)) is not None]


def line(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    figures = (f"{one[key]:.3f}" for key in ("median_error", "median_error_of_no_change", "median_width"))
    return (name, f"{one['forecasts']}", f"{100 * one['coverage']:.0f} %", *figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--fit", type=Path, nargs="*", default=[])
    parser.add_argument("--curves", type=Path)
    asked = parser.parse_args()
    if asked.curves:
        known = json.loads(asked.curves.read_text())
        curves, learned = known["curves"], known["fitted_on"]
    elif asked.runs:
        curves, learned = stored(asked.runs), stored(asked.fit)
    else:
        with tempfile.TemporaryDirectory() as place:
            curves, learned = make(Path(place)), []
    found = moments(curves)
    result: dict[str, Any] = {"all": coverage(found), "weights": {str(q): list(w) for q, w in REMAINING.items()}}
    for low, high in BANDS:
        some = [moment for moment in found if low <= moment["share"] < high]
        result[f"{100 * low:.0f} to {100 * high:.0f} %"] = coverage(some) if some else None
    if learned:
        result["weights_found_anew"] = {str(quantile): fit(moments(learned), quantile) for quantile in REMAINING}
    rows = [line(name, one) for name, one in result.items() if isinstance(one, dict) and "coverage" in one]
    print(f"{len(curves)} runs")
    print(table(("done", "forecasts", "covered", "error", "no change", "width"), rows))
    for each in (*curves, *learned):
        each["training"] = [[step, round(loss, 5)] for step, loss in each["training"]]
        each["name"] = "/".join(str(each["name"]).split("/")[-2:])
    file = save("forecast", {"machine": machine(), "result": result, "curves": curves, "fitted_on": learned})
    print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
