"""The diary of a run as lines that people read, and the answers that it gave on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from hone.report.folder import Record, RunFolder, plain
from hone.report.numbers import clock, count, finite, loss_text

PLAIN = ("t", "kind")


class Line(NamedTuple):
    """One entry of the timeline: when (minutes and seconds since the start), a tone, what happened, and the rest of the event."""

    when: str
    tone: str
    title: str
    detail: str


class Sample(NamedTuple):
    """The answers to one prompt in the course of training, as (step, answer)."""

    prompt: str
    answers: Sequence[tuple[str, str]]


def timeline(run: RunFolder) -> list[Line]:
    """Every event but the samples, in order; runs of checkpoints become one line."""
    told = [event for event in run.events if event.get("kind") != "sample"]
    begin = next((t for event in told if (t := finite(event.get("t"))) is not None), 0.0)
    lines: list[Line] = []
    row: list[Record] = []
    for event in [*told, {}]:
        if row and (event.get("kind") != "checkpoint"):
            lines.append(_checkpoints(row, begin))
            row = []
        if event.get("kind") == "checkpoint":
            row.append(event)
        elif event:
            lines.append(_line(event, begin))
    return lines


def samples(run: RunFolder) -> list[Sample]:
    """Answers during training, by prompt, for the prompts that were asked more than once."""
    found: dict[str, list[tuple[str, str]]] = {}
    for event in run.of_kind("sample"):
        step = finite(event.get("step"))
        answer = (f"step {step:,.0f}" if step is not None else "", plain(event.get("answer", "")))
        found.setdefault(plain(event.get("prompt", "")), []).append(answer)
    return [Sample(prompt, answers) for prompt, answers in found.items() if len(answers) > 1]


def date(run: RunFolder) -> str:
    """The day and minute (UTC) on which the run began."""
    t = next((t for event in run.events if (t := finite(event.get("t"))) is not None), None)
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(t)) if t is not None and 0 <= t < 1e11 else ""


def _line(event: Record, begin: float) -> Line:
    kind = plain(event.get("kind", "event"))
    step = finite(event.get("step"))
    at = f" at step {step:,.0f}" if step is not None else ""
    loss = finite(event.get("eval_loss", event.get("loss")))
    measured = f": held-out loss {loss_text(loss)}" if loss is not None else ""
    titles = {
        "started": ("plain", "Started", ("total_steps",)),
        "resumed": ("plain", f"Resumed{at}", ("step",)),
        "skipped_step": ("mixed", f"Step {step or 0:,.0f} skipped", ("step",)),
        "evaluated": ("plain", f"Evaluated{at}{measured}", ("step", "loss", "eval_loss")),
        "stopped": ("mixed", f"Stopped{at}: {plain(event.get('reason', ''))}".rstrip(": "), ("step", "reason")),
        "finished": ("good", f"Finished{at}", ("step",)),
        "warning": ("mixed", plain(event.get("what", event.get("text", "Warning"))), ("what", "text")),
    }
    tone, title, used = titles.get(kind, ("plain", kind.replace("_", " ").capitalize() + at, ("step",)))
    rest = {} if kind == "started" else {k: v for k, v in event.items() if k not in (*PLAIN, *used) and v not in (None, "", [], {})}
    detail = " · ".join(f"{k.replace('_', ' ')} {_brief(v)}" for k, v in rest.items())
    return Line(_when(event, begin), tone, title, detail)


def _checkpoints(events: Sequence[Record], begin: float) -> Line:
    steps = [f"{step:,.0f}" for event in events if (step := finite(event.get("step"))) is not None]
    listed = ", ".join(steps) if len(steps) < 8 else f"{steps[0]} to {steps[-1]}"
    title = f"Checkpoint at step {listed}" if len(steps) == 1 else f"{count(len(events), 'checkpoint')}: step {listed}"
    return Line(_when(events[-1], begin), "plain", title, "")


def _when(event: Record, begin: float) -> str:
    t = finite(event.get("t"))
    return "" if t is None else clock(t - begin)


def _brief(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_brief(item) for item in value[:8]) + (f" and {len(value) - 8} more" if len(value) > 8 else "")
    number = finite(value)
    text = f"{number:g}" if number is not None else plain(value)
    return text if len(text) <= 300 else text[:300] + "…"
