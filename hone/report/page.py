"""Writes report.html: one self-contained page without scripts that tells what a run did and whether it worked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from hone.core.files import write_atomically
from hone.report.diagnosis import shown
from hone.report.facts import Facts
from hone.report.fates import read_fates
from hone.report.folder import RunFolder, plain, read_run, record, records
from hone.report.numbers import duration, finite, loss_text, percent, short, size, smooth, whole
from hone.report.own import OWN, imitates
from hone.report.scores import Score, averages, read_scores
from hone.report.story import date, samples, timeline
from hone.report.svg import Format, Mark, Series, interval_bars, line_chart
from hone.report.verdict import findings, judge

HERE = Path(__file__).parent
WIDE, NARROW = 940, 340
VERBS = ("chat", "eval", "export", "train")


class Tile(NamedTuple):
    """One figure of the overview."""

    value: str
    name: str
    note: str


class Figure(NamedTuple):
    """A titled chart in a wide and a narrow drawing; the style sheet shows the one that fits."""

    title: str
    note: str
    wide: Markup
    narrow: Markup


class Setting(NamedTuple):
    """A value of the resolved settings, and why it was chosen (empty where the user gave it)."""

    name: str
    value: str
    reason: str


class Answer(NamedTuple):
    """One question with the answers of both models."""

    prompt: str
    expected: str
    before: str
    after: str

    @property
    def right(self) -> bool:
        return bool(self.expected) and self.after.strip() == self.expected.strip()


def write_report(folder: Path | str, *, verbs: Collection[str] = VERBS) -> Path:
    """Write `report.html` into a run folder and return its path.

    `verbs` are the commands that this installation has; only those are recommended. Missing or damaged files become a
    line in the report. Raises F061 if there is no such folder.
    """
    run = read_run(folder)
    page = run.path / "report.html"
    write_atomically(page, render(run, verbs=verbs).encode("utf-8", "replace").decode("utf-8"))
    return page


def render(run: RunFolder, *, verbs: Collection[str] = VERBS) -> str:
    """The page as text."""
    facts, fates, scores = Facts(run), read_fates(run.ledger), read_scores(run.evaluation)
    found, diagnosis = shown(run)
    return _template().render(
        style=Markup((HERE / "page.css").read_text("utf-8")),
        facts=facts,
        date=date(run),
        verdict=judge(run, scores),
        findings=findings(run, fates),
        tiles=tiles(run),
        scores=[(score, bars(score)) for score in scores],
        average=averages(scores) if sum(score.is_share for score in scores) > 1 else None,
        answers=answers(run),
        samples=samples(run),
        figures=figures(run),
        found=found,
        diagnosis=diagnosis,
        fates=fates,
        settings=settings(run),
        timeline=timeline(run),
        environment=[(name, plain(value)) for name, value in facts.environment.items()],
        commands=facts.commands(verbs),
    )


@cache
def _template() -> Template:
    env = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"percent": percent, "whole": whole}
    return env.get_template("page.html.jinja")


def tiles(run: RunFolder) -> list[Tile]:
    """The figures that people look for first; what was not measured is left out."""
    found = []
    held_out, losses, speeds = run.series("eval_loss"), run.series("loss"), run.series("tokens_per_second")
    if held_out:
        note = f"{loss_text(held_out[0][1])} at step {held_out[0][0]:,.0f}" if len(held_out) > 1 else "measured once"
        found.append(Tile(loss_text(held_out[-1][1]), "held-out loss", note))
    if len(right := run.series("eval_accuracy")) > 1:
        found.append(Tile(percent(right[-1][1]), "held-out accuracy", f"{percent(right[0][1])} at step {right[0][0]:,.0f}"))
    if losses:
        note = f"{loss_text(losses[0][1])} at step {losses[0][0]:,.0f}"
        found.append(Tile(loss_text(smooth(y for _, y in losses)[-1]), "training loss", note))
    if tokens := run.series("tokens"):
        found.append(Tile(short(tokens[-1][1]), "tokens read", "without padding"))
    if speeds:
        middle = sorted(y for _, y in speeds)[len(speeds) // 2]
        found.append(Tile(short(round(middle)), "tokens per second", "median of the steps"))
    if (seconds := Facts(run).seconds) >= 1:
        found.append(Tile(duration(seconds), "time at work", "without pauses"))
    if memory := run.series("memory_bytes"):
        found.append(Tile(size(max(y for _, y in memory)), "peak memory", "of the process"))
    return found


def figures(run: RunFolder) -> list[Figure]:
    """The loss first and large, then the small ones."""
    found = []
    losses, held_out = run.series("loss"), run.series("eval_loss")
    if losses or held_out:
        averaged = list(zip((x for x, _ in losses), smooth(y for _, y in losses), strict=True))
        curves = [Series("each step", losses, "faint"), Series("train", averaged, "train"), Series("held out", held_out, "held")]
        what = "Mean negative log-likelihood of a learned token." if imitates(run) else f"Mean loss of {Facts(run).objective}."
        note = f"{what} The training curve is a moving average{_gaps(run)}."
        found.append(_figure("Loss", note, curves, form=loss_text, marks=_marks(run), height=320))
    for name, own in OWN.items():
        steps, held = run.series(name), run.series(f"eval_{name}")
        if steps or held:
            averaged = list(zip((x for x, _ in steps), smooth(y for _, y in steps), strict=True))
            curves = [Series("train", averaged, "train"), Series("held out", held, "held")]
            found.append(_figure(own.title, own.about, curves, width=NARROW, height=190))
    for name, title in (("learning_rate", "Learning rate"), ("grad_norm", "Gradient norm"), ("tokens_per_second", "Tokens per second")):
        if points := run.series(name):
            found.append(_figure(title, "", [Series(title, points)], width=NARROW, height=190))
    return found


def bars(score: Score) -> Markup:
    """Before above after, with whiskers, on a scale that both share."""
    top = 1.0 if score.is_share else max(m.high for m in score.sides) * 1.05 or 1.0
    sides = [("before", score.before), ("after", score.after)]
    label = ", ".join(f"{name} {side.text} ({side.interval or 'no interval'})" for name, side in sides if side)
    return interval_bars([(name, s.value, s.low, s.high) for name, s in sides if s], top=top, label=label)


def answers(run: RunFolder) -> dict[str, list[Answer]]:
    """Sample answers by task."""
    found: dict[str, list[Answer]] = {}
    for sample in records(run.evaluation.get("samples")):
        fields = [plain(sample.get(name, "")) for name in ("prompt", "expected", "before", "after")]
        found.setdefault(plain(sample.get("task", "")), []).append(Answer(*fields))
    return found


def settings(run: RunFolder) -> dict[str, list[Setting]]:
    """The resolved settings by section, with reasons; what stands outside the sections is called `run`."""
    reasons = record(run.resolved.get("reasons"))
    found: dict[str, list[Setting]] = {}
    for section, values in run.resolved.items():
        if section == "reasons":
            continue
        if isinstance(values, dict):
            found[section] = [Setting(k, _setting(v), plain(reasons.get(f"{section}.{k}", ""))) for k, v in values.items()]
        else:
            found.setdefault("run", []).append(Setting(section, _setting(values), plain(reasons.get(section, ""))))
    return {section: values for section, values in found.items() if values}


def _setting(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = finite(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return f"{number:g}" if number is not None and abs(number) < 1e6 else plain(value)


def _figure(
    title: str, note: str, curves: Sequence[Series], *, height: int, width: int = WIDE, form: Format = short, marks: Sequence[Mark] = ()
) -> Figure:
    label = f"{title} over the steps"
    wide = line_chart(curves, label=label, width=width, height=height, form=form, marks=marks)
    narrow = line_chart(curves, label=label, width=NARROW, height=230, form=form, marks=marks) if width > NARROW else Markup("")
    return Figure(title, note, wide, narrow)


def _marks(run: RunFolder) -> list[Mark]:
    names = {"resumed": "resumed", "skipped_step": "skipped"}
    events = [(finite(event.get("step")), names[str(event["kind"])]) for event in run.of_kind(*names)]
    return [(step, text) for step, text in events if step is not None]


def _gaps(run: RunFolder) -> str:
    lost = sum(finite(line.get("loss")) is None for line in run.steps)
    return f"; {lost} step{'s' if lost != 1 else ''} without a finite loss left out" if lost else ""
