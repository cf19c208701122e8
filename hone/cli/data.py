"""`hone data`: look at data, check it, count it, split it and mend it, without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hone.data.quality import Gauge
    from hone.data.reading import Outcome, Reading

app = typer.Typer(help="Check, show, count, split and mend data.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)

File = Annotated[str, typer.Argument(help="File, folder or hub id.")]
Model = Annotated[str, typer.Option(help="Folder or hub id of a model: its tokenizer counts tokens.")]
MaxLength = Annotated[int, typer.Option(min=2, help="Longest sequence in tokens, as data.max_length.")]
Format = Annotated[str, typer.Option(help="Format of the rows; auto recognises it.")]
Column = Annotated[list[str] | None, typer.Option(help="OURS=THEIRS, where a column is not recognised; may be repeated.")]
Template = Annotated[str, typer.Option(help="Chat template, as data.template.")]
HeldOut = Annotated[str | None, typer.Option(help="A held-out file: are its rows in here, the same or nearly?")]
Near = Annotated[bool, typer.Option("--near", help="Also look for rows that are nearly the same.")]


@app.command()
def check(
    file: File,
    model: Model = "",
    max_length: MaxLength = 2048,
    held_out: HeldOut = None,
    format: Format = "auto",
    column: Column = None,
    template: Template = "auto",
) -> int:
    """What is wrong with a source: each bad row with its number. The exit status is 1 if there is one."""
    from hone.cli.data_views import show_check
    from hone.cli.style import console
    from hone.data.quality import inspect

    gauge = gauge_of(model, file, max_length=max_length, template=template)
    report = inspect(file, reading=reading_of(format, column), gauge=gauge, held_out=held_out)
    show_check(report, console())
    return 1 if report.bad else 0


@app.command()
def stats(
    file: File,
    model: Model = "",
    max_length: MaxLength = 2048,
    format: Format = "auto",
    column: Column = None,
    template: Template = "auto",
    near: Near = False,
) -> None:
    """How much there is: rows, lengths, labels, and what is there twice."""
    from hone.cli.data_views import show_stats
    from hone.cli.style import console
    from hone.data.quality import inspect

    gauge = gauge_of(model, file, max_length=max_length, template=template)
    show_stats(inspect(file, reading=reading_of(format, column), gauge=gauge, near=near), console(), limit=max_length)


@app.command()
def show(
    file: File,
    row: Annotated[int, typer.Option(min=1, help="Number of the row; in JSON lines, of the line.")],
    model: Model = "",
    max_length: MaxLength = 2048,
    format: Format = "auto",
    column: Column = None,
    run: Annotated[str, typer.Option(help="A run folder: what became of the row there.")] = "",
) -> int:
    """One row, and what becomes of it; with a model or a run, as tokens, those that are learned marked."""
    from hone.cli.data_views import show_row
    from hone.cli.style import console

    reading = reading_of(format, column)
    gauge, fate = gauge_of(model, file, max_length=max_length), None
    if run:
        from hone.cli.data_run import of_run

        reading, gauge, fate = of_run(Path(run), file, row)
    show_row(find_row(file, row, reading), console(), reading=reading, gauge=gauge, fate=fate)
    return 0


@app.command()
def split(
    file: File,
    held_out: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of the conversations to keep aside.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides which.")] = 42,
    format: Format = "auto",
    column: Column = None,
) -> None:
    """Write a training and a held-out file beside a source, with no prompt on both sides, and a record with their hashes."""
    from hone.cli.style import console, pairs
    from hone.data.split import split_file

    made = split_file(file, fraction=held_out, seed=seed, reading=reading_of(format, column))
    rows = [("train", f"{made.train}: {made.train_rows:,} rows"), ("held out", f"{made.held_out}: {made.held_out_rows:,} rows")]
    rows += [("left out", ", ".join(f"{count:,} x {code}" for code, count in made.left_out.items()))] if made.left_out else []
    pairs(console(), [*rows, ("record", f"{made.record}: hash {made.hash[:16]}")])


@app.command()
def fix(file: File, format: Format = "auto", column: Column = None) -> None:
    """Write a repaired copy beside a source, in one plain format, and say what was changed."""
    from hone.cli.style import console, pairs, paragraph
    from hone.data.fix import fix_file

    made, out = fix_file(file, reading=reading_of(format, column)), console()
    paragraph(out, f"{made.path}: {made.written:,} of {made.read:,} rows")
    pairs(out, [(f"{count:,} x", what) for what, count in made.changes.most_common()] or [("", "nothing had to be changed")])


def reading_of(format: str, columns: list[str] | None) -> Reading:
    """How rows are to be read, from the options of the command line. Raises C005 for a column that is not OURS=THEIRS."""
    from hone.core.errors import HoneError
    from hone.data.reading import Reading

    mapped: dict[str, str] = {}
    for item in columns or ():
        ours, equals, theirs = item.partition("=")
        if not equals:
            raise HoneError("C005", f"'{item}' does not map a column", where="--column", fix="write --column prompt=user_query")
        mapped[ours] = theirs
    return Reading(format, mapped)


def gauge_of(model: str, file: str, *, max_length: int, template: str = "auto") -> Gauge | None:
    """How tokens are counted with a model's tokenizer; None where no model is named. Its weights are not read."""
    if not model:
        return None
    from hone.data.chat import ChatTemplate
    from hone.data.quality import Gauge
    from hone.data.settings import DataSettings
    from hone.models.hub import fetch_small
    from hone.models.locate import local_folder
    from hone.models.tokens import load_tokenizer

    tokenizer = load_tokenizer(local_folder(model) or fetch_small(model)[0])
    return Gauge(tokenizer, ChatTemplate.of(tokenizer, template), DataSettings(train=file, max_length=max_length, template=template))


def find_row(file: str, row: int, reading: Reading) -> Outcome:
    """What reading makes of one row. Raises D040 where the source has no such row."""
    from hone.core.errors import HoneError

    last = 0
    for outcome in reading.source(file):
        last = outcome.origin.row
        if last == row:
            return outcome
    raise HoneError("D040", f"there is no row {row}; the last one is {last}", where=file, fix="blank lines and headers are no rows")
