"""From the finished results of `bench.methods` to means with intervals, a table and a picture.

A value is the mean over seeds, with Student's interval over them; what changed against the start (or, for students, against plain SFT) also
gets an interval over the questions, each averaged over the seeds and drawn again.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from bench.arms import ARMS
from hone.eval.intervals import bootstrap

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
"""Two-sided 95 % quantiles of Student's distribution, by the number of seeds."""
MAIN = {"manners": "manners", "sums": "reward", "tasks": "exact match", "pairs": "ordered"}
GOALS = {"dpo": 0.20, "kto": 0.20, "orpo": 0.20, "simpo": 0.20, "grpo": 0.15, "rloo": 0.15, "ppo": 0.15, "online dpo": 0.15}
"""What the main number shall rise by."""
LOSS = 0.02
"""Of the facts that may be lost meanwhile."""
ORDERED = 0.95
DOCUMENT = common.ROOT / "docs" / "methods.md"
PICTURE = common.ROOT / "docs" / "overoptimised.svg"
Row = dict[str, Any]


def summary(results: Sequence[Row]) -> list[Row]:
    """One row for each arm, in the order of the arms."""
    by_arm = {name: [r for r in results if r["arm"] == name] for name in ARMS}
    return [_row(name, found, by_arm) for name, found in by_arm.items() if found]


def _row(name: str, found: Sequence[Row], by_arm: dict[str, list[Row]]) -> Row:
    arm = ARMS[name]
    against = "more sft" if arm.part == "distilled" and name not in ("student", "more sft") else arm.start
    row: Row = {"arm": name, "part": arm.part, "against": against, "seeds": [r["seed"] for r in found], "command": found[0]["command"]}
    row["cpu_seconds"] = statistics.fmean(r["cpu_seconds"] for r in found)
    row["metrics"] = {key: _metric(key, found, by_arm.get(against, [])) for key in found[0]["scores"]}
    return row | {"met": _met(name, row)}


def _metric(key: str, found: Sequence[Row], before: Sequence[Row]) -> Row:
    each = [statistics.fmean(r["scores"][key]) for r in found]
    metric: Row = {"each": each, **over_seeds(each)}
    starts = {r["seed"]: r["scores"][key] for r in before if key in r["scores"]}
    shared = starts.get(0)
    pairs = [(r["scores"][key], starts.get(r["seed"], shared)) for r in found]
    if all(start is not None for _, start in pairs):
        changes = np.array([np.subtract(after, start) for after, start in pairs])  # type: ignore[arg-type]
        metric["change"] = over_seeds([float(change.mean()) for change in changes])
        metric["change_over_questions"] = bootstrap(lambda rows: float(rows.mean()), changes.mean(0)).to_json()
    return metric


def over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and Student's 95 % interval; one value has none."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    half = T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _met(name: str, row: Row) -> bool | None:
    """Whether the goal of an arm is met, where it has one and all that it is compared with is there."""
    metrics = row["metrics"]
    if name == "reward model":
        return bool(metrics["ordered"]["mean"] >= ORDERED)
    change = metrics.get(MAIN[ARMS[name].asks], {}).get("change")
    if name not in GOALS or change is None:
        return None
    lost = -metrics["facts"]["change"]["mean"] if "facts" in metrics else 0.0
    return bool(change["mean"] >= GOALS[name] and lost <= LOSS)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, shares in percent."""
    lines = [
        "| arm | seeds | against | number | value | change | over questions | goal | CPU s |",
        "|---|---:|---|---|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        for key, metric in row["metrics"].items():
            main = key == MAIN[ARMS[row["arm"]].asks]
            goal = {True: "met", False: "**missed**", None: ""}[row["met"] if main else None]
            names = (row["arm"], str(len(row["seeds"])), row["against"], key) if main else ("", "", "", key)
            change, within = metric.get("change"), metric.get("change_over_questions")
            cells = [_cell(metric), _cell(change, sign=True), _span(within), goal, f"{row['cpu_seconds']:.0f}" if main else ""]
            lines.append(f"| {' | '.join((*names, *cells))} |")
    return "\n".join(lines)


def _cell(found: Row | None, *, sign: bool = False) -> str:
    if found is None:
        return ""
    mean = f"{100 * found['mean']:+.1f}" if sign else f"{100 * found['mean']:.1f}"
    return mean if found["low"] is None else f"{mean} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def _span(found: Row | None) -> str:
    return f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f}" if found else ""


def document(found: Row) -> Path:
    """Put the table between the marks of docs/methods.md, and draw the curve."""
    text = DOCUMENT.read_text("utf-8")
    text = re.sub(r"(<!-- table -->).*?(<!-- end -->)", lambda m: f"{m[1]}\n{table(found['summary'])}\n{m[2]}", text, flags=re.DOTALL)
    DOCUMENT.write_text(text, "utf-8")
    if found["curves"]:
        PICTURE.write_text(picture([run["curve"] for run in found["curves"]]), "utf-8")
    return DOCUMENT


def picture(curves: Sequence[dict[str, list[float]]], *, width: int = 720, height: int = 300) -> str:
    """Proxy and gold over the steps, means over seeds, each smoothed over five steps and scaled to its own range."""
    steps = min(len(curve["reward/gold"]) for curve in curves)
    lines = []
    for name, colour, word in (
        ("reward/model", "#c2410c", "proxy: the weak reward model"),
        ("reward/gold", "#0f766e", "gold: the checker"),
    ):
        values = np.mean([curve[name][:steps] for curve in curves], 0)
        smooth = [float(values[max(0, i - 4) : i + 1].mean()) for i in range(steps)]
        low, high = min(smooth), max(smooth)
        x, y = (
            (lambda i: 50 + i * (width - 70) / max(1, steps - 1)),
            (lambda v, a=low, b=high: height - 40 - (v - a) / (b - a or 1) * (height - 90)),
        )
        path = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(smooth))
        place = 20 if name == "reward/model" else 40
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="50" y="{place}" fill="{colour}">{word}, from {low:.2f} to {high:.2f}</text>')
    axis = f'<path d="M50 {height - 40} H{width - 20}" stroke="#888"/>'
    axis += f'<text x="{width / 2:.0f}" y="{height - 12}" fill="#666">step 1 to {steps}</text>'
    style = 'font-family="sans-serif" font-size="13"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>{axis}{"".join(lines)}</svg>\n'
