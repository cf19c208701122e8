"""The doctor's findings on the page and in the terminal: what is shown of each, and with which curve."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from hone.plan.doctor import Chart, Diagnosis, Finding, Remedy, diagnose
from hone.report.chart import chart_of
from hone.report.folder import RunFolder
from hone.report.numbers import loss_text, short
from hone.report.sketch import sketch
from hone.report.svg import Point, Series, line_chart

TITLES = {"loss": "training loss", "eval_loss": "held-out loss", "grad_norm": "gradient norm", "surprise": "entropy"}
LOOKS = {"eval_loss": "held", "loss": "train"}
MOST = 2
"""Curves that are drawn of one finding: those that share its scale come first."""


class Cure(NamedTuple):
    """A remedy with its number and its settings as words, one text for each run that it asks for."""

    number: int
    title: str
    words: tuple[str, ...]
    command: str
    sweep: str = ""
    """Where the runs differ in one setting: the line that trains and ranks them."""


class Shown(NamedTuple):
    """One finding as it is shown."""

    finding: Finding
    sure: str
    drawing: Markup
    cures: tuple[Cure, ...]


def shown(run: RunFolder) -> tuple[list[Shown], Diagnosis]:
    """The findings of a run for its page, and the diagnosis that they come from."""
    chart = chart_of(run)
    diagnosis = diagnose(chart)
    cures = cures_of(diagnosis, run.path)
    return [Shown(one, sure(one.confidence), drawing(chart, one), tuple(cures[one.code])) for one in diagnosis.findings], diagnosis


def sure(confidence: float) -> str:
    """A confidence in words."""
    return "certain" if confidence >= 0.95 else "likely" if confidence >= 0.8 else "possible"


def cures_of(diagnosis: Diagnosis, folder: Path) -> Mapping[str, list[Cure]]:
    """The remedies of each finding by its code, numbered as `--apply` counts them: only those that settings can bring."""
    found: dict[str, list[Cure]] = {one.code: [] for one in diagnosis.findings}
    numbers = iter(range(1, len(diagnosis.remedies) + 1))
    for one, remedy in diagnosis.remedies:
        found[one.code].append(_cure(next(numbers), remedy, folder))
    return found


def _cure(number: int, remedy: Remedy, folder: Path) -> Cure:
    words = tuple(" ".join(f"{key}={_said(value)}" for key, value in change.items()) for change in remedy.changes)
    command = f"hone doctor {shlex.quote(str(folder))} --apply {number}" if words else ""
    return Cure(number, remedy.title, words, command, _sweep(remedy, folder))


def _sweep(remedy: Remedy, folder: Path) -> str:
    keys = {key for arm in remedy.arms for key in arm}
    if len(remedy.arms) < 2 or len(keys) != 1:
        return ""
    key = keys.pop()
    values = ",".join(_said(arm[key]) for arm in remedy.arms)
    return f"hone sweep {shlex.quote(str(folder / 'recipe.yaml'))} output={shlex.quote(str(folder))}-sweep {key}={values}"


def _said(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value).replace("'", "").replace(" ", "")


def curves(chart: Chart, finding: Finding) -> list[tuple[str, list[Point]]]:
    """The curves that show a finding, by their titles; losses share a drawing, others stand alone."""
    known = [(name, list(chart.series[name])) for name in finding.curves if chart.series.get(name)]
    first = [(name, points) for name, points in known if name in ("loss", "eval_loss")]
    chosen = first if first and known[0][0] in ("loss", "eval_loss") else known[:1]
    return [(TITLES.get(name, name.replace("_", " ")), points) for name, points in chosen[:MOST]]


def drawing(chart: Chart, finding: Finding) -> Markup:
    """An SVG of the curves with the mark."""
    looks = {TITLES[name]: look for name, look in LOOKS.items()}
    series = [Series(title, points, looks.get(title, "line")) for title, points in curves(chart, finding)]
    if not series:
        return Markup("")
    marks = [finding.mark] if finding.mark is not None else []
    form = loss_text if finding.curves[0] in LOOKS else short
    return line_chart(series, label=f"{finding.code}: {finding.name}", width=620, height=190, form=form, marks=marks)


def lines(chart: Chart, finding: Finding, *, width: int) -> list[str]:
    """The same as text."""
    return sketch(curves(chart, finding), mark=finding.mark, width=width)
