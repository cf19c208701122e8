"""How `hone data` looks: reports of a source, and a single row with its fate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hone.cli.style import beside, pairs, paragraph
from hone.data.checks import NOTHING_TO_LEARN
from hone.data.refusals import title
from hone.report.tables import CONTEXT, LEARNED, coloured
from hone.report.terminal import tame

if TYPE_CHECKING:
    from hone.core.types import Conversation, Example, Group, Origin
    from hone.data.ledger import Fate
    from hone.data.near import Near
    from hone.data.quality import Gauge, Report
    from hone.data.reading import Outcome, Reading

LISTED = 8
"""Row numbers, labels and the like are shown up to here."""


def show_check(report: Report, out: Console) -> None:
    """The source, its bad rows by code, what else is odd, and the verdict."""
    _head(report, out)
    for code, faults in report.bad_by_code().items():
        first = faults[0][1]
        beside(out, code, f"{title(code)}: {_rows(len(faults))} ({_numbers(origin for origin, _ in faults)})", width=6, style="bold red")
        beside(out, "", f"{first.what}\n{first.where}", width=6)
        beside(out, "fix", first.fix, width=6)
    for notice in report.notices:
        beside(out, notice.code, str(notice).removeprefix(f"{notice.code}: "), width=6, style="yellow")
    for code, text in _extra(report):
        beside(out, code, text, width=6, style="yellow")
    verdict = (
        f"{len(report.bad):,} of {_rows(report.rows)} cannot be learned from"
        if report.bad
        else f"all {_rows(report.rows)} can be learned from"
    )
    paragraph(out, verdict, style="bold red" if report.bad else "bold green")


def _extra(report: Report) -> Iterable[tuple[str, str]]:
    """Findings that no single row is to blame for."""
    if report.duplicates:
        yield "D035", f"the same as an earlier row: {_rows(len(report.duplicates))} ({_numbers(row for row, _ in report.duplicates)})"
    if report.truncated:
        yield "", f"longer than the limit: {_rows(len(report.truncated))} ({_numbers(report.truncated)})"
    if report.overlap:
        shown = ", ".join(f"{aside.row} = {train.row}" for aside, train in report.overlap[:LISTED])
        yield "D030", f"prompts of the held-out file that stand here: {len(report.overlap):,} (row there = row here: {shown})"
    elif report.overlap is not None:
        yield "", "no prompt of the held-out file stands here"
    if report.near_overlap:
        yield "D030", f"nearly the same as a row of the held-out file: {len(report.near_overlap):,} ({_nearly(report.near_overlap)})"


def show_stats(report: Report, out: Console, *, limit: int) -> None:
    """Numbers: rows, lengths, labels, repetitions."""
    _head(report, out)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    for name in ("length of a row in", "p50", "p95", "p99", "longest", "total"):
        table.add_column(name, justify="left" if name.startswith("length") else "right", no_wrap=name != "length of a row in")
    for unit, *values in report.lengths:
        table.add_row(unit, *(f"{value:,}" for value in values))
    out.print(table)
    share = len(report.truncated) / max(1, report.usable) if report.truncated is not None else None
    rows = [
        ("usable", f"{report.usable:,} of {_rows(report.rows)}"),
        ("messages", f"{report.messages:,}" if report.messages else ""),
        (
            "repeated",
            f"{_rows(len(report.duplicates))} exactly"
            + (f" ({_numbers(row for row, _ in report.duplicates)})" if report.duplicates else ""),
        ),
        ("same prompt", f"{_rows(report.same_prompt)} with another answer"),
        ("nearly same", "" if report.near is None else f"{_rows(len(report.near))} ({_nearly(report.near)})" if report.near else "none"),
        ("too long", "" if share is None else f"{share:.1%} of the rows have more than {limit:,} tokens"),
        ("labels", ", ".join(f"{tame(name)} {count:,}" for name, count in list(report.labels.items())[:LISTED])),
    ]
    more = len(report.labels) - LISTED
    rows += [("", f"and {more} more labels")] if more > 0 else []
    pairs(out, [(label, text) for label, text in rows if text])
    for notice in report.notices:
        beside(out, notice.code, str(notice).removeprefix(f"{notice.code}: "), width=6, style="yellow")


def _head(report: Report, out: Console) -> None:
    paragraph(out, f"{report.source}: {_rows(report.rows)}", style="bold")
    for name, layout in report.layouts.items():
        told = f" ({name})" if len(report.layouts) > 1 else ""
        beside(out, "format", f"{layout.format.name}{told}: {', '.join(layout.describe())}", width=8)
    for remark in report.remarks:
        beside(out, "note", remark.text if remark.source == report.source else f"{remark.source}: {remark.text}", width=8)


def _nearly(near: list[Near]) -> str:
    return ", ".join(f"{one.row.row} and {one.earlier.row}" for one in near[:LISTED]) + (" ..." if len(near) > LISTED else "")


def show_row(outcome: Outcome, out: Console, *, reading: Reading, gauge: Gauge | None, fate: Fate | None) -> None:
    """One row: what it says, what is learned of it, and its fate."""
    layout = reading.layouts.get(outcome.origin.source)
    paragraph(out, str(outcome.origin), style="bold")
    if layout is not None:
        beside(out, "format", f"{layout.format.name}: {', '.join(layout.describe())}", width=8)
    for note in outcome.notes:
        beside(out, note.code, note.text, width=8, style="yellow")
    if outcome.example is None:
        assert outcome.fault is not None
        end = "left out and counted" if outcome.fault.code in NOTHING_TO_LEARN else "the run stops, unless data.skip_bad is set"
        beside(out, "fate", f"{end}: {outcome.fault.code}", width=8, style="bold red")
        beside(out, "", f"{outcome.fault.what}\n{outcome.fault.where}", width=8)
        beside(out, "fix", outcome.fault.fix, width=8)
        return
    if gauge is None:
        _messages(outcome.example, out)
        beside(out, "fate", "nothing speaks against learning from it; name a --model to see its tokens", width=8)
        return
    judged = gauge.judge(outcome)
    for group in judged.groups:
        _tokens(group, gauge, out)
    if not judged.groups:
        _messages(outcome.example, out)
    beside(out, "fate", str(fate or judged.fate), width=8, style="bold")
    if judged.fault is not None:
        beside(out, "", judged.fault.what, width=8)
        beside(out, "fix", judged.fault.fix, width=8)


def _tokens(group: Group, gauge: Gauge, out: Console) -> None:
    """The sequences of a group as tokens, the learned ones marked."""
    from hone.cli.show import pieces

    for number, sequence in enumerate(group, start=1):
        if len(group) > 1:
            paragraph(out, f"{'better' if number == 1 else 'worse'} answer", style="bold")
        out.print(coloured(pieces(gauge.tokenizer, sequence.tokens), sequence.weights, console=out))


def _messages(example: Example, out: Console) -> None:
    """The text or the messages; answers are marked."""
    if example.text is not None:
        paragraph(out, example.text, indent=2, style=LEARNED)
    for number, said in enumerate(example.conversations, start=1):
        if len(example.conversations) > 1:
            paragraph(out, f"{'better' if number == 1 else 'worse'} answer", style="bold")
        _conversation(said, out)


def _conversation(said: Conversation, out: Console) -> None:
    for one in said:
        learned = one.role == "assistant" and one.weight != 0
        out.print(Text(f"  {one.role}{' (learned)' if learned else ''}", style=LEARNED if learned else CONTEXT))
        text = "\n".join([one.content, *(str(call["function"]) for call in one.tool_calls)]).strip("\n")
        paragraph(out, text, indent=4)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _numbers(origins: Iterable[Origin]) -> str:
    """The numbers of some rows, the first few."""
    listed = [origin.row for origin in origins]
    shown = ", ".join(map(str, listed[:LISTED])) + (" ..." if len(listed) > LISTED else "")
    return f"row{'' if len(listed) == 1 else 's'} {shown}"
