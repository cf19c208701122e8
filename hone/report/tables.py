"""Tables and coloured text for the terminal: scores before and after, what a row teaches, and why a setting is what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box, get_console
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hone.report.folder import plain, record
from hone.report.numbers import percent
from hone.report.scores import Measure, Score, averages, read_scores
from hone.report.terminal import tame, visible

LEARNED, PARTLY, CONTEXT = "bold green", "bold yellow", "dim"
OPEN, CLOSE = "⟦", "⟧"


class Bar:
    """A value between 0 and `top` with its interval: solid up to the low end, shaded to the value, light to the high end."""

    def __init__(self, side: Measure, *, top: float, style: str) -> None:
        self.side, self.top, self.style = side, top, style

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(10, 40)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(40, options.max_width)
        solid, shade, light = "#=-" if options.ascii_only else "█▓░"
        ends = (self.side.low, self.side.value, self.side.high)
        low, value, high = (min(width, max(0, round(end / self.top * width))) for end in ends)
        high = max(high, low + 1) if self.side.high > 0 else high
        yield Text(solid * low + shade * (value - low) + light * (high - max(low, value)), style=self.style, no_wrap=True)


def before_after(evaluation: Mapping[str, Any]) -> RenderableType:
    """Scores of base and tuned model for every task, with 95 % intervals and bars."""
    scores = read_scores(evaluation)
    if not scores:
        return Text("Nothing was measured before and after.", style="dim")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("task", min_width=12)
    table.add_column("", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("", min_width=10, ratio=1)
    for score in scores:
        _add(table, score)
    if (mean := averages(scores)) is not None and sum(score.is_share for score in scores) > 1:
        table.add_row(Text("average", style="bold"), "before", percent(mean[0]), "", "")
        table.add_row("", "after", Text(percent(mean[1]), style="bold green" if mean[1] > mean[0] else "bold"), "", "")
    return table


def _add(table: Table, score: Score) -> None:
    top = 1.0 if score.is_share else max(m.high for m in score.sides) or 1.0
    asked = f"{score.metric_name}, n={score.n}" if score.n else score.metric_name
    names = [Text(tame(score.task), style="bold"), Text(tame(asked), style="dim")]
    better = "bold green" if (score.gain or 0) > 0 else "bold"
    sides = [("before", score.before, "bright_black", ""), ("after", score.after, "green", better)]
    for i, (name, side, bar, style) in enumerate(sides):
        if side is None:
            table.add_row(names[i], name, "", "not measured", "")
        else:
            table.add_row(names[i], name, Text(side.text, style=style), Text(side.interval, style="dim"), Bar(side, top=top, style=bar))
    table.add_section()


def coloured(tokens: Sequence[str], weights: Sequence[float], *, console: Console | None = None) -> Text:
    """A row as the model sees it, the learned tokens coloured, with a legend.

    `tokens` are decoded pieces, `weights` their learning weights: 1 learned, 0 context, anything else partly learned.
    Where the console shows no colours the learned stretches stand in ⟦ ⟧.
    """
    assert len(tokens) == len(weights), "one weight a token"
    console = console or get_console()
    brackets = console.no_color or console.color_system is None
    text, style = Text(), ""
    for token, weight in zip(tokens, weights, strict=True):
        new = CONTEXT if weight == 0 else LEARNED if weight == 1 else PARTLY
        if brackets and new != style:
            text.append(_turn(style, new))
        style = new
        text.append(visible(token), style)
    if brackets:
        text.append(_turn(style, CONTEXT))
    text.append("\n" if text.plain.endswith("\n") else "\n\n")
    return text.append_text(_legend(weights, brackets))


def _turn(old: str, new: str) -> str:
    """The bracket signs between two stretches."""
    return (CLOSE if old in (LEARNED, PARTLY) else "") + (OPEN if new in (LEARNED, PARTLY) else "")


def _legend(weights: Sequence[float], brackets: bool) -> Text:
    learned = sum(weight != 0 for weight in weights)
    mark = f"{OPEN}learned{CLOSE}" if brackets else "learned"
    legend = Text.assemble((mark, LEARNED), f" {learned:,} of {len(weights):,} tokens")
    if any(weight not in (0, 1) for weight in weights):
        legend.append(" · ").append("partly" if not brackets else f"{OPEN}partly{CLOSE}", PARTLY).append(" weight other than 1")
    return legend.append(" · ").append("read only", CONTEXT)


def settings_table(resolved: Mapping[str, Any]) -> RenderableType:
    """The settings that hone chose itself, each with its reason."""
    reasons = record(resolved.get("reasons"))
    if not reasons:
        return Text("Every setting was given; nothing had to be chosen.", style="dim")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", style="bold", overflow="fold")
    table.add_column("why", style="dim", ratio=1, overflow="fold")
    for name, why in reasons.items():
        section, dot, key = name.partition(".")
        value = record(resolved.get(section)).get(key) if dot else resolved.get(section)
        table.add_row(Text(tame(name)), Text(tame(_value(value))), Text(tame(plain(why))))
    return table


def rows_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A line for each row, a column for each of their keys."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="left" if isinstance(rows[0].get(name), str) else "right")
    for row in rows:
        table.add_row(*(Text(f"{value:.3f}" if isinstance(value := row.get(name, ""), float) else tame(str(value))) for name in names))
    return table


def _value(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else plain(value)
