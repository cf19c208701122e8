"""From the finished results of `bench.methods_peft` to means with intervals, and the tables of docs/peft.md."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bench import common
from bench.peft_arms import ARMS, BASE, FEW
from bench.peft_tasks import TASKS
from bench.summary import over_seeds
from hone.eval.intervals import bootstrap

DOCUMENT = common.ROOT / "docs" / "peft.md"
AGAINST = "LoRA"
Row = dict[str, Any]


def summary(results: Sequence[Row]) -> Row:
    """What each method came to on each task, against LoRA question by question, and the low-data rows."""
    known = [result for result in results if result["arm"] in (BASE, *ARMS)]
    table = [r for r in known if r["part"] == "table"]
    before = {r["task"]: r for r in table if r["arm"] == BASE}
    arms = {name: [r for r in table if r["arm"] == name] for name in ARMS}
    rows = [_row(name, found, arms[AGAINST], before) for name, found in arms.items() if found]
    few = [r for r in known if r["part"] == "few"]
    tried = [{key: r[key] for key in ("arm", "task", "rate", "aside")} for r in known if r["part"] == "rates"]
    base = {task: {"score": statistics.fmean(r["scores"]), "prose": r["prose"]} for task, r in before.items()}
    return {"base": base, "methods": rows, "few": [_few(name, few) for name in ARMS if any(r["arm"] == name for r in few)], "rates": tried}


def _row(name: str, found: Sequence[Row], lora: Sequence[Row], before: dict[str, Row]) -> Row:
    tasks = {task: [r for r in found if r["task"] == task] for task in TASKS}
    row: Row = {"arm": name, "trainable": found[0]["trainable"], "memory": statistics.median(r["memory"] for r in found)}
    row["tokens_per_cpu_second"] = statistics.median(r["tokens"] / r["cpu_seconds"] for r in found)
    row["tasks"] = {
        task: {
            "rate": each[0]["rate"],
            "seeds": [r["seed"] for r in each],
            "score": over_seeds([statistics.fmean(r["scores"]) for r in each]),
            "against": _against(each, [r for r in lora if r["task"] == task]),
            "forgotten": over_seeds([r["prose"] - before[task]["prose"] for r in each]),
        }
        for task, each in tasks.items()
        if each
    }
    return row


def _against(found: Sequence[Row], others: Sequence[Row]) -> Row | None:
    """The mean difference over the seeds that both have, with an interval over the questions."""
    right = {r["seed"]: r["scores"] for r in others}
    apart = [np.subtract(r["scores"], right[r["seed"]]) for r in found if r["seed"] in right]
    return bootstrap(lambda rows: float(rows.mean()), np.mean(apart, 0)).to_json() if apart else None


def _few(name: str, few: Sequence[Row]) -> Row:
    sizes = {rows: [r for r in few if r["arm"] == name and r["rows"] == rows] for rows in FEW}
    found = {str(rows): over_seeds([statistics.fmean(r["scores"]) for r in each]) for rows, each in sizes.items() if each}
    gated = {rows: [r for r in few if r["arm"] == "UniPELT" and r["rows"] == rows] for rows in FEW}
    return {"arm": name, "sizes": found, "against": {str(rows): _against(each, gated[rows]) for rows, each in sizes.items() if each}}


def table(found: Row) -> str:
    """All methods, as Markdown."""
    heads = ("method", "trainable", *(f"{task} | against LoRA" for task in TASKS), "forgotten (town, news)", "MB", "tokens a CPU second")
    lines = [_line(heads), "|---|" + "--:|" * 8]
    base = found["base"]
    scores = [cell for task in TASKS for cell in ((f"{100 * base[task]['score']:.1f}" if task in base else ""), "")]
    lines.append(_line(("the seedling as it is", "0", *scores, "", "", "")))
    for row in found["methods"]:
        tasks = [row["tasks"].get(task) for task in TASKS]
        apart = ["" if each is None or row["arm"] == AGAINST else _apart(each["against"]) for each in tasks]
        cells = [cell for each, other in zip(tasks, apart, strict=True) for cell in (_mean(each["score"]) if each else "", other)]
        forgotten = ", ".join(f"{each['forgotten']['mean']:+.2f}" if each else "–" for each in tasks)
        share = f"{100 * row['trainable']:.2f} %"
        lines.append(_line((row["arm"], share, *cells, forgotten, f"{row['memory'] / 2**20:.0f}", f"{row['tokens_per_cpu_second']:,.0f}")))
    return "\n".join(lines)


def few_table(found: Row) -> str:
    """The low-data rows, as Markdown."""
    heads = [cell for rows in FEW for cell in (f"{rows} examples", "against UniPELT")]
    lines = [_line(("method", *heads)), "|---|" + "--:|" * len(heads)]
    for row in found["few"]:
        cells = []
        for rows in map(str, FEW):
            mean = row["sizes"].get(rows)
            cells += [_mean(mean) if mean else "", "" if row["arm"] == "UniPELT" else _apart(row["against"].get(rows))]
        lines.append(_line((row["arm"], *cells)))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(found: Row) -> str:
    """A share in percent with half of its interval over the seeds."""
    half = "" if found["low"] is None else f" ± {100 * (found['high'] - found['mean']):.1f}"
    return f"{100 * found['mean']:.1f}{half}"


def _apart(found: Row | None) -> str:
    return "" if found is None else f"{100 * found['value']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


def document(found: Row) -> str:
    """Put the tables between the marks of docs/peft.md."""
    text = DOCUMENT.read_text("utf-8")
    for mark, lines in (("methods", table(found)), ("few", few_table(found))):
        text = re.sub(rf"(<!-- {mark} -->).*?(<!-- end -->)", lambda m, new=lines: f"{m[1]}\n{new}\n{m[2]}", text, flags=re.DOTALL)
    DOCUMENT.write_text(text, "utf-8")
    return str(DOCUMENT.relative_to(common.ROOT))
