"""A run folder as the doctor's chart."""

from __future__ import annotations

from hone.plan.doctor import Chart, Rows
from hone.report.facts import Facts
from hone.report.folder import RunFolder, record
from hone.report.numbers import finite

ASIDE = ("step", "epoch")
"""Fields of a line of metrics that are no curve."""


def chart_of(run: RunFolder) -> Chart:
    """Everything in a folder that a finding may look at."""
    facts = Facts(run)
    names = dict.fromkeys(key for line in (*run.steps, *run.held_out) for key in line if key not in ASIDE)
    started = {key: facts.started[key] for key in ("parameters", "trainable", "hidden") if key in facts.started}
    lines = [line for line in run.rows if isinstance(line.get("loss"), list)]
    kept = [i for i, loss in enumerate(lines[-1]["loss"]) if finite(loss) is not None] if lines else []
    same = [line for line in lines if len(line["loss"]) == len(lines[0]["loss"])]
    first = lines[0] if lines else {}
    return Chart(
        settings=run.resolved,
        series={name: points for name in names if (points := run.series(name))},
        facts={**record(facts.started.get("facts")), **started},
        rows=[Rows(float(line["step"]), [finite(line["loss"][i]) or 0.0 for i in kept]) for line in same],
        names=[str(first["rows"][i]) for i in kept] if "rows" in first else (),
        answers=[int(first["answers"][i]) for i in kept] if "answers" in first else (),
        ledger=run.ledger,
        skipped=len(run.of_kind("skipped_step")),
        stopped=finite(record(run.evaluation.get("stopped")).get("after")),
        probe=run.probe,
        running=facts.status[0] == "unfinished",
    )
