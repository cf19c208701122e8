"""`hone eval`: measure a run or a model on data that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hone.core.types import Example, Group
    from hone.eval.evaluate import Evaluation
    from hone.recipe.build import Opened

MOST = 500
"""Questions that are asked, unless more are wanted."""
SHOWN = 400
"""Characters of an answer that are shown."""


def command(
    model: Annotated[str, typer.Argument(help="Run folder, adapter, model folder or hub id.")],
    settings: Annotated[list[str] | None, typer.Argument(help="data=FILE to ask; without it, what the run kept aside.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Measure the base as well, and what changed.")] = False,
    metric: Annotated[list[str] | None, typer.Option(help="auto, a grader's name, or file.py:function; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Most questions, a seeded choice of all; 0 asks all.")] = MOST,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    out: Annotated[Path | None, typer.Option(help="Also write all answers and scores to this file.")] = None,
) -> None:
    """Held-out loss, perplexity and the share of right answers, with 95 % intervals."""
    from hone.cli.asking import base_of
    from hone.cli.style import console
    from hone.eval import answers
    from hone.eval.evaluate import compare as compared
    from hone.recipe.opening import open_model

    terminal = console()
    if out is not None:
        _check_place(out)
    opened = open_model(model)
    asked = held_out(opened, settings or [])
    how = How(tuple(metric or ("auto",)), limit or None, max_new_tokens)
    before = None
    if compare:
        with base_of(opened) as base:
            before = measure(base, asked, how, partial(_status, terminal, "the base"))
    after = measure(opened, asked, how, partial(_status, terminal, "the model"))
    show(after, before, terminal)
    if out is not None:
        _write(out, after.to_json() if before is None else {"before": before.to_json(), "after": after.to_json()})
    if opened.folder is not None:
        found = _after_only(after) if before is None else compared(before, after)
        answers.save(opened.folder, after)
        _keep(opened.folder, found, terminal)


@dataclass(frozen=True, slots=True)
class How:
    """What is measured, and how much."""

    metrics: tuple[str, ...]
    limit: int | None
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Asked:
    """The data of an evaluation: rows with their answers, and the same as tokens."""

    rows: list[Example]
    groups: list[Group]


def held_out(opened: Opened, overrides: list[str]) -> Asked:
    """The file that was named, all of it, or what the run kept aside. Raises D060 where that is nothing."""
    from hone.core.config import parse
    from hone.core.errors import HoneError
    from hone.data.prepare import prepare
    from hone.data.reading import Reading
    from hone.data.settings import DataSettings
    from hone.recipe.words import read

    named = read(None, overrides)[0].get("data", {})
    options = {**opened.resolved.get("data", {}), **named}
    if "train" in named:
        options["held_out"] = 0.0
    elif "train" not in options:
        raise HoneError("D060", "this model comes without data to ask", fix="name some: hone eval MODEL data=FILE")
    data = parse(DataSettings, options, section="data")
    prepared = prepare(data, opened.tokenizer, opened.template)
    groups = list(prepared.groups if "train" in named else prepared.held_out)
    reading, wanted = Reading.of(data), {group[0].origin for group in groups}
    outcomes = reading.source(data.held_out) if isinstance(data.held_out, str) else reading.sources(data.sources, seed=data.seed)
    rows = [one.example for one in outcomes if one.example is not None and one.origin in wanted]
    if not rows:
        raise HoneError("D060", "the run kept no data aside", where="data.held_out", fix="name some: hone eval RUN data=FILE")
    return Asked(rows, groups)


def measure(opened: Opened, asked: Asked, how: How, status: Callable[[str], Any]) -> Evaluation:
    """Ask one model and read its loss."""
    from hone.cli.asking import sampler_of
    from hone.eval.evaluate import by_model, evaluate
    from hone.eval.likelihood import likelihood

    sampler = sampler_of(opened)
    answerer = by_model(sampler.generate, opened.template, max_new_tokens=how.max_new_tokens, context=sampler.context)
    with status("answers"):
        found = evaluate(answerer, asked.rows, metrics=how.metrics, max_questions=how.limit)
    with status("reads"):
        return replace(found, likelihood=likelihood(opened.policy, opened.tokenizer, asked.groups[: how.limit]))


def _status(terminal: Console, who: str, what: str) -> Any:
    return terminal.status(f"{who} {what} ...")


def show(after: Evaluation, before: Evaluation | None, terminal: Console) -> None:
    """Scores, a few answers, and how many stopped by themselves."""
    from hone.cli.style import beside, paragraph
    from hone.eval.evaluate import compare, majorities
    from hone.report.numbers import percent
    from hone.report.tables import before_after

    found = _after_only(after) if before is None else compare(before, after)
    terminal.print(_table(after) if before is None else before_after(found))
    for sample in found["samples"]:
        paragraph(terminal, f"\n{sample['prompt']}", style="bold")
        for side in ("expected", "before", "after"):
            if side in sample:
                beside(terminal, side, _clipped(sample[side]) or "(nothing)", width=10)
    stopped = after.stopped()
    notes = [f"{percent(stopped.value)} of {len(after.outcomes)} answers ended by themselves"] if stopped else []
    notes += [f"always saying '{best.label}' would score {percent(best.share)} on {best.task}" for best in majorities(after)]
    notes += [f"{after.left_out} questions were not asked: their prompts fill the whole context"] if after.left_out else []
    paragraph(terminal, "\n" + "\n".join(notes))


def _clipped(answer: str) -> str:
    """The beginning of an answer that does not come to an end; `--out` keeps all of it."""
    return answer if len(answer) <= SHOWN else f"{answer[:SHOWN].rstrip()} ... ({len(answer):,} characters)"


def _table(evaluation: Evaluation) -> Any:
    from rich import box
    from rich.table import Table

    from hone.report.scores import Measure

    table = Table("task", "metric", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for numbers in ("n", "score", "95 % interval"):
        table.add_column(numbers, justify="right", no_wrap=True)
    above = None
    for line in evaluation.tasks():
        measured = Measure.of(line["metric"], line["value"], line["low"], line["high"])
        task = "" if line["task"] == above else line["task"]
        table.add_row(task, line["metric"].replace("_", " "), str(line["n"]), measured.text, measured.interval)
        above = line["task"]
    return table


def _after_only(evaluation: Evaluation) -> dict[str, Any]:
    """One evaluation in the shape of a run's evaluation.json."""
    saved = evaluation.to_json()
    tasks = [
        {key: line[key] for key in ("task", "metric", "n")} | {"after": {k: line[k] for k in ("value", "low", "high")}}
        for line in saved["tasks"]
    ]
    samples = [{key: one[key] for key in ("task", "prompt", "expected")} | {"after": one["answer"]} for one in saved["samples"]]
    stopped = {"after": saved["stopped"]["value"]} if saved["stopped"] else {}
    return {"tasks": tasks, "samples": samples, "stopped": stopped, "left_out": saved["left_out"]}


def _keep(folder: Path, found: dict[str, Any], terminal: Console) -> None:
    """Into the run's evaluation.json and report. A comparison that is there is not replaced by one side alone."""
    from hone.report import page

    path = folder / "evaluation.json"
    alone = not any("before" in line for line in found["tasks"])
    if alone and path.is_file() and "before" in path.read_text("utf-8"):
        terminal.print(f"\n{path} keeps its comparison; --compare measures both sides anew", style="dim", soft_wrap=True)
        return
    _write(path, found)
    page.write_report(folder)
    terminal.print(f"\nwritten: {path} and report.html", style="dim", soft_wrap=True)


def _check_place(file: Path) -> None:
    """Raise F005 or F006 before anything is asked where the answers could not be written to the file."""
    from hone.core.disk import check_output
    from hone.core.errors import HoneError

    if file.is_dir():
        raise HoneError("F006", "a folder, where answers go to a file", where=str(file), fix=f"--out {file / 'answers.json'}")
    check_output(file.parent, 0)


def _write(path: Path, document: dict[str, Any]) -> None:
    from hone.core.files import write_atomically

    write_atomically(path, json.dumps(document, indent=1, ensure_ascii=False))
