"""Stores the charts of one seed's runs small enough for the tests: python -m bench.charts WORK tests/plan/charts.json [--seed 0]."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.doctor import patients
from hone.report.chart import chart_of
from hone.report.folder import read_run

CURVES = (
    "loss", "eval_loss", "grad_norm", "update_ratio", "learned_tokens", "reward", "surprise", "distinct", "answer_tokens", "cut", "clipped",
    "lag", "without_contrast",
)  # fmt: skip
SETTINGS = {
    "optim": ("learning_rate", "batch_size", "max_steps", "epochs", "clip", "warmup_ratio", "weight_decay"),
    "tuning": ("method", "rank", "alpha", "dropout", "targets"),
    "objective": ("name", "kl"),
    "data": ("max_length", "template"),
    "rollout": ("passes", "parts"),
}


def main() -> None:
    """Write the charts."""
    parser = argparse.ArgumentParser(prog="python -m bench.charts", description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = {}
    for _, case, folder in patients(options.work, [options.seed]):
        found[case.name] = {"must": case.must, "may": case.may, **small(folder / "run")}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(chart, separators=(',', ':'))}" for name, chart in found.items())
    options.file.write_text("{\n" + lines + "\n}\n")


def small(folder: Path) -> dict[str, Any]:
    """The parts of a chart that findings read, with four digits of each number."""
    chart = chart_of(read_run(folder))
    series = {name: points for name, points in chart.series.items() if name in CURVES or name.startswith("reward/")}
    rows = [chart.rows[i] for i in sorted({0, min(1, len(chart.rows) - 1), len(chart.rows) - 1})] if chart.rows else []
    return {
        "settings": {name: {key: chart[f"{name}.{key}"] for key in keys} for name, keys in SETTINGS.items() if name in chart.settings},
        "series": {name: [[step, _brief(value)] for step, value in points] for name, points in series.items()},
        "facts": {key: _brief(value) for key, value in chart.facts.items() if isinstance(value, int | float)},
        "rows": [[row.step, [_brief(loss) for loss in row.losses]] for row in rows],
        "answers": list(chart.answers),
        "ledger": {key: value for key, value in chart.ledger.items() if key != "sources"},
        "probe": {key: _brief(value) for key, value in chart.probe.items() if value is not None},
    }


def _brief(value: float) -> float:
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
