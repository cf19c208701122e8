"""A run folder as the doctor's chart."""

from __future__ import annotations

from typing import Any

from hone.plan.doctor import Chart, Rows
from hone.report.facts import Facts
from hone.report.folder import Record, RunFolder, record
from hone.report.numbers import finite

ASIDE = ("step", "epoch")
"""Fields of a line of metrics that are no curve."""


def chart_of(run: RunFolder) -> Chart:
    """Everything in a folder that a finding may look at."""
    facts = Facts(run)
    names = dict.fromkeys(key for line in (*run.steps, *run.held_out) for key in line if key not in ASIDE)
    started = {key: facts.started[key] for key in ("parameters", "trainable", "hidden") if key in facts.started}
    lines = [line for line in run.rows if isinstance(line.get("loss"), list)]
    same = [line for line in lines if len(line["loss"]) == len(lines[0]["loss"])]
    kept = [i for i, loss in enumerate(same[-1]["loss"]) if finite(loss) is not None] if same else []
    first = lines[0] if lines else {}
    return Chart(
        settings=run.resolved,
        series={name: points for name in names if (points := run.series(name))},
        facts={**record(facts.started.get("facts")), **started},
        rows=[Rows(float(line["step"]), [finite(line["loss"][i]) or 0.0 for i in kept]) for line in same],
        names=[str(name) for name in _about(first, "rows", kept)],
        answers=[int(finite(answer) or 0) for answer in _about(first, "answers", kept)],
        ledger=run.ledger,
        skipped=len(run.of_kind("skipped_step")),
        stopped=finite(record(run.evaluation.get("stopped")).get("after")),
        probe=run.probe,
        running=facts.status[0] == "unfinished",
    )


def _about(line: Record, name: str, kept: list[int]) -> list[Any]:
    """What a line of rows.jsonl says of the rows that are kept; nothing where it does not say it of all."""
    told = line.get(name)
    return [told[i] for i in kept] if isinstance(told, list) and all(i < len(told) for i in kept) else []
