"""Rows of tables and of plain text: CSV, TSV, Parquet, and files without columns."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.data.openfile import MAX_ROW, decode, lines, open_data, too_long
from hone.data.rows import Bad, Item, Remark, Row

PASSAGE = 4000
"""Characters of a passage of plain text: about a thousand tokens of English."""
_SKIP = "mend the row, or leave such rows out with data.skip_bad=true"


def csv_rows(stream: BinaryIO, name: str, *, delimiter: str = ",") -> Iterator[Item]:
    """Rows of a table with a header line. A table with semicolons or tabs instead of commas is recognised by its header.

    Raises D003, D008 or D016 (no header, a name twice, a quote that never closes); a row with too many or too few cells is given as bad.
    """
    csv.field_size_limit(MAX_ROW)
    text = _Lines(stream, name)
    first = next(text, None)
    if first is None:
        return
    rows = csv.reader(_chain(first, text), delimiter=_delimiter(first, delimiter), strict=True)
    header = _header(rows, name)
    for number, cells in enumerate(_guarded(rows, text), start=1):
        if not cells:
            continue
        if len(cells) == len(header):
            yield Row(Origin(name, number), dict(zip(header, cells, strict=True)))
        else:
            what = f"the row has {len(cells)} cells and the header has {len(header)}"
            fix = f"put cells with commas or line breaks in double quotes; {_SKIP}"
            yield Bad(Origin(name, number), HoneError("D016", what, where=f"{name}:{text.number}", fix=fix))


class _Lines(Iterator[str]):
    """The decoded lines of a file, and the number of the last one taken."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.numbered, self.name, self.number = lines(stream), name, 0

    def __next__(self) -> str:
        self.number, raw = next(self.numbered)
        if raw is None:
            raise too_long(self.name, self.number)
        return decode(raw, name=self.name, number=self.number)


def _chain(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _delimiter(header: str, usual: str) -> str:
    counts = {mark: header.count(mark) for mark in (usual, ";", "\t", "|")}
    return usual if counts[usual] else max(counts, key=lambda mark: counts[mark])


def _header(rows: Iterator[list[str]], name: str) -> list[str]:
    header = [cell.strip() for cell in next(rows)]
    twice = next((cell for cell in header if header.count(cell) > 1), None)
    if twice is not None:
        what = f"the column '{twice}' stands twice in the header" if twice else "columns in the header have no name"
        raise HoneError("D016", what, where=f"{name}:1", fix="give each column a name of its own in the first line")
    return header


def _guarded(rows: Iterator[list[str]], text: _Lines) -> Iterator[list[str]]:
    start = 2
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            what = f"the table cannot be read on: {error} (the row begins at line {start})"
            fix = 'close every double quote, and write one inside a cell as ""'
            raise HoneError("D016", what, where=f"{text.name}:{text.number}", fix=fix) from None
        if cells is None:
            return
        start = text.number + 1
        yield cells


def parquet_rows(path: Path, name: str) -> Iterator[Item]:
    """Rows of a Parquet file, read batch by batch; of a packed one, once it is unpacked. Raises D009, D014, and D015 (damaged)."""
    import pyarrow
    from pyarrow import parquet

    number = 0
    with open_data(path) as stream:
        file = io.BytesIO(stream.read()) if path.suffix.lower() == ".gz" else path
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=1024):
            for columns in batch.to_pylist():
                number += 1
                yield Row(Origin(name, number), columns)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise HoneError("D015", f"the Parquet file is damaged: {reason}", where=name, fix="download or write it again") from None


def text_rows(stream: BinaryIO, name: str) -> Iterator[Item]:
    """Plain text as passages of about PASSAGE characters, in order and with nothing left out.

    A passage is made of whole paragraphs; of whole lines where the file has no blank line. One that is longer stays whole.
    """
    text = "".join(decode(raw, name=name, number=number) for number, raw in _whole(stream, name))
    text = text.replace("\r\n", "\n").strip()
    parts, glue = re.split(r"\n[ \t]*\n\s*", text), "\n\n"
    if len(parts) == 1:
        parts, glue = text.split("\n"), "\n"
    for number, passage in enumerate(_passages(parts, glue), start=1):
        yield Row(Origin(name, number), {"text": passage})
    if text.startswith(("{", "[")) and text.partition("\n")[0].rstrip().endswith(("}", "]")):
        yield Remark(name, "the lines of this text file look like JSON: call it .jsonl if they are rows")


def _whole(stream: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    for number, raw in lines(stream):
        if raw is None:
            raise too_long(name, number)
        yield number, raw


def _passages(parts: Iterable[str], glue: str) -> Iterator[str]:
    held: list[str] = []
    length = 0
    for part in filter(str.strip, parts):
        if held and length + len(part) > PASSAGE:
            yield glue.join(held)
            held, length = [], 0
        held.append(part)
        length += len(part)
    if held:
        yield glue.join(held)
