"""The diary of a run as lines that people read, and the answers that it gave on the way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from hone.report.folder import Record, RunFolder, plain
from hone.report.numbers import clock, count, finite, loss_text

TOLD = ("t", "kind", "step", "what", "text", "reason", "eval_loss", "best_step", "value", "low", "high")
"""Fields that the title of a line already tells."""


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
    reason = plain(event.get("reason", ""))
    what = plain(event.get("what", event.get("text", "")))
    loss, best = finite(event.get("eval_loss")), finite(event.get("best_step"))
    known = {
        "started": ("plain", "Started"),
        "resumed": ("plain", f"Resumed{at}"),
        "skipped_step": ("mixed", f"Skipped step {step or 0:,.0f}: {what}"),
        "loss_spike": ("mixed", f"{what or 'The loss jumped'}{at}"),
        "early_stop": ("plain", f"Stopped early{at}: the held-out loss was best at step {best or 0:,.0f}"),
        "evaluated": ("plain", f"Evaluated{at}" + (f": held-out loss {loss_text(loss)}" if loss is not None else "")),
        "forecast": ("plain", f"Expected at the end{at}: held-out loss " + _interval(event)),
        "stopped": ("mixed", f"Stopped{at}: {reason}"),
        "best_kept": ("plain", f"Kept the weights of step {step or 0:,.0f}, the best on held-out data"),
        "finished": ("good", f"Finished{at}" + ("" if reason == "the end" else f": {reason}")),
        "warning": ("mixed", what or "Warning"),
        "finding": ("mixed", f"The doctor{at}: {what}"),
    }
    tone, title = known.get(kind, ("plain", (what or kind.replace("_", " ")) + at))
    shown = {} if kind in ("started", "resumed") else event
    rest = {key: value for key, value in shown.items() if key not in TOLD and value not in (None, "", [], {})}
    detail = " · ".join(f"{key.replace('_', ' ')} {_brief(value)}" for key, value in rest.items())
    return Line(_when(event, begin), tone, title[:1].upper() + title[1:].rstrip(": "), detail)


def _interval(event: Record) -> str:
    """A value with both ends of its interval."""
    value, low, high = (finite(event.get(name)) for name in ("value", "low", "high"))
    return "" if value is None or low is None or high is None else f"{loss_text(value)} ({loss_text(low)} to {loss_text(high)})"


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
