"""Sources to rows: files of any kind, folders, data sets of the hub, and mixtures of these."""

from __future__ import annotations

import difflib
import io
import json
import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from hone.core.errors import HoneError
from hone.data import hub
from hone.data.jsonlines import json_document, json_lines
from hone.data.openfile import has_bom, open_data
from hone.data.rows import Bad, Item, Remark, Row
from hone.data.settings import Source
from hone.data.tables import csv_rows, parquet_rows, text_rows

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXTS = (".txt", ".text", ".md")
_EMPTY = "check the path, or write rows into it"


def load(source: str, *, skip_bad: bool = False, on_bad: Callable[[HoneError], None] | None = None) -> Iterator[Row]:
    """The rows of a file, a folder or a hub id. A row that cannot be read is raised, or with `skip_bad` told to `on_bad`.

    Raises D001 ... D009, D012 ... D019 and S002.
    """
    for item in items(source):
        if isinstance(item, Row):
            yield item
        elif isinstance(item, Bad):
            if not skip_bad:
                raise item.error
            if on_bad is not None:
                on_bad(item.error)


class Drawn(NamedTuple):
    """An item of a mixture, and how often it is seen in an epoch."""

    item: Item
    copies: int


def load_all(sources: Iterable[Source], *, seed: int = 42) -> Iterator[Drawn]:
    """All items of several sources, in order. A weight of 0.5 draws half of a source's rows, 2.5 all twice and half of them thrice."""
    for index, source in enumerate(sources):
        if source.weight == 1:
            yield from (Drawn(item, 1) for item in items(source.path))
            continue
        found = list(items(source.path))
        rows = [i for i, item in enumerate(found) if isinstance(item, Row)]
        whole, part = divmod(source.weight, 1)
        lucky = set(random.Random(f"{seed}/{index}/{source.path}").sample(rows, round(part * len(rows))))
        yield from (Drawn(item, int(whole) + (i in lucky)) for i, item in enumerate(found))


def items(source: str, *, encoding: str = "utf-8") -> Iterator[Item]:
    """Rows, bad rows and remarks of a source. Raises D002 where there is none of the first two, and what `load` raises."""
    found = False
    for item in _open(source, encoding):
        found = found or not isinstance(item, Remark)
        yield item
    if not found:
        raise HoneError("D002", "there is not a single row in it", where=source, fix=_EMPTY)


def _open(source: str, encoding: str) -> Iterator[Item]:
    path = Path(source)
    if not source.strip():
        raise HoneError("D014", "no file is named", where="data.train", fix="name a file, a folder or a data set of the hub")
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):
        is_folder = is_file = False
    if is_folder and hub.is_saved(path):
        return hub.saved_rows(path, source)
    if is_folder:
        return _folder(path, encoding)
    if is_file:
        return read_file(path, encoding=encoding)
    if hub.looks_like_hub(source) and (source.startswith(hub.PREFIX) or kind_of(path) not in TABLES + TEXTS):
        return hub.hub_rows(source)
    raise HoneError("D014", "there is no such file or folder", where=source[:200], fix=_near(path))


def _near(path: Path) -> str:
    """The file that may have been meant."""
    try:
        close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    except (OSError, ValueError):
        close = []
    return f"did you mean '{close[0]}'?" if close else "check the path; a data set of the hub is written hub:owner/name"


def _folder(folder: Path, encoding: str) -> Iterator[Item]:
    """The files of a folder by name. Text files beside tables are taken for notes and licences."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path, folder)]
    for path in files:
        if not path.resolve().is_relative_to(folder.resolve()):
            fix = "copy the file into the folder, or name it as a source of its own"
            raise HoneError("S002", "a link in the folder leads out of it", where=str(path), fix=fix)
    tables = [path for path in files if kind_of(path) in TABLES]
    taken = tables or [path for path in files if kind_of(path) in TEXTS]
    if not taken:
        fix = f"hone reads {', '.join((*TABLES, *TEXTS))}, also with .gz"
        raise HoneError("D002", "the folder holds no data files", where=str(folder), fix=fix)
    if left := [path.name for path in files if path not in taken]:
        yield Remark(str(folder), f"{len(left)} other files passed over: {', '.join(left[:3])}{' ...' if len(left) > 3 else ''}")
    for path in taken:
        yield from read_file(path, encoding=encoding)


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


def kind_of(path: Path) -> str:
    """The ending that tells how a file is read, without `.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_file(path: Path, *, encoding: str = "utf-8") -> Iterator[Item]:
    """The rows of one file. Raises D002 for an empty file and D014 for an unknown kind."""
    name, kind = str(path), kind_of(path)
    if kind not in TABLES + TEXTS:
        fix = f"hone reads {', '.join((*TABLES, *TEXTS))}, also with .gz"
        raise HoneError("D014", f"hone does not know how to read '{kind or path.name}' files", where=name, fix=fix)
    if path.stat().st_size == 0:
        raise HoneError("D002", "the file is empty", where=name, fix=_EMPTY)
    if kind == ".parquet":
        yield from parquet_rows(path, name)
        return
    _check_download(path)
    if encoding == "utf-8" and has_bom(path):
        yield Remark(name, "the byte order mark at its beginning is ignored")
    with open_data(path, encoding=encoding) as stream:
        yield from _rows(stream, name, kind)


def _check_download(path: Path) -> None:
    """D015 for what stands in a file's place where a download went wrong: the pointer of Git LFS, or a web page."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        fix = "run `git lfs pull` in the folder, or download the file itself"
        raise HoneError("D015", "this is the pointer of Git LFS, not the data that it stands for", where=str(path), fix=fix)
    if head.startswith((b"<!doctype html", b"<html")) and kind_of(path) not in TEXTS:
        fix = "download the file itself, not the page that shows it (on hubs: `resolve` or `raw` in the address, not `blob`)"
        raise HoneError("D015", "this is a web page, not data", where=str(path), fix=fix)


def _rows(stream: io.BufferedReader, name: str, kind: str) -> Iterator[Item]:
    if kind in TEXTS:
        return text_rows(stream, name)
    if kind in (".csv", ".tsv"):
        return csv_rows(stream, name, delimiter="\t" if kind == ".tsv" else ",")
    if kind != ".json" and not stream.peek(1)[:64].lstrip().startswith(b"["):
        return json_lines(stream, name)
    whole = stream.read()
    if not _one_a_line(whole):
        return json_document(io.BytesIO(whole), name)
    return chain([Remark(name, "it is called .json and holds JSON lines")] if kind == ".json" else [], json_lines(io.BytesIO(whole), name))


def _one_a_line(whole: bytes) -> bool:
    """Whether a file holds a JSON value in each line, not one document, by its first line."""
    first, _, rest = whole.lstrip().partition(b"\n")
    if not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True
