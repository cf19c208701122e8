"""Writes a repaired copy of a data file, in one plain format, and counts every change. The original is never touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hone.core.types import Conversation, Example, Message
from hone.data.formats import FORMATS, WANTED
from hone.data.jsonlines import line_of
from hone.data.layout import known_names
from hone.data.loaders import kind_of
from hone.data.openfile import encoding_of, has_bom
from hone.data.reading import Outcome, Reading
from hone.data.refusals import title
from hone.data.split import beside, example_key, write_new

PLAIN = {"messages": "messages", "preference": "prompt, chosen, rejected", "kto_messages": "messages, label", "text": "text"}
"""The formats that are written, with their columns."""


class Fixed(NamedTuple):
    """What `fix_file` wrote."""

    path: Path
    read: int
    written: int
    changes: Counter[str]
    """What was done -> rows, or 1 for what concerns the file."""


def fix_file(source: str, *, reading: Reading | None = None) -> Fixed:
    """Write `NAME.fixed.jsonl` beside a source. Raises D037 where it is there and differs, and what concerns the whole source."""
    reading, changes = reading or Reading(), Counter[str]()
    path, target = Path(source), beside(source, "fixed.jsonl")
    is_text = path.is_file() and kind_of(path) != ".parquet"
    encoding = encoding_of(path) if is_text else "utf-8"
    if encoding != "utf-8":
        changes[f"converted from {encoding} to UTF-8"] += 1
    elif is_text and has_bom(path):
        changes["byte order mark removed"] += 1
    outcomes = list(reading.source(source, encoding=encoding))
    examples = list(_kept(outcomes, changes))
    for layout in reading.layouts.values():
        if layout.format.name not in PLAIN:
            changes[f"format {layout.format.name} rewritten as {PLAIN[_plain_format(examples)]}"] += 1
    rows = [_row(example) for example in examples]
    write_new({target: "".join(map(line_of, rows))})
    return Fixed(target, len(outcomes), len(rows), changes)


def _kept(outcomes: Iterable[Outcome], changes: Counter[str]) -> Iterable[Example]:
    """The first of each usable example."""
    seen: set[str] = set()
    for one in outcomes:
        if one.example is None:
            assert one.fault is not None
            changes[f"dropped: {one.fault.code} {title(one.fault.code)}"] += 1
            continue
        changes.update(f"{note.code}: {note.text}" for note in one.notes)
        key = example_key(one.example)
        if key in seen:
            changes["dropped: the same as an earlier row"] += 1
            continue
        seen.add(key)
        yield one.example


def _plain_format(examples: list[Example]) -> str:
    first = examples[0] if examples else Example()
    if first.text is not None:
        return "text"
    return "preference" if len(first.conversations) == 2 else "kto_messages" if WANTED in first.columns else "messages"


def _row(example: Example) -> Mapping[str, Any]:
    """An example as a row of a plain format. Other columns stay, unless their names could be taken for something else."""
    known = known_names(FORMATS) | {WANTED}
    rest = {name: value for name, value in example.columns.items() if name not in known}
    offered = {"tools": list(example.tools)} if example.tools else {}
    if example.text is not None:
        return {"text": example.text} | rest
    if len(example.conversations) == 1:
        label = {"label": example.columns[WANTED]} if WANTED in example.columns else {}
        return {"messages": _messages(example.conversations[0], judged=WANTED in example.columns)} | offered | label | rest
    chosen, rejected = example.conversations
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected)))
    sides = {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}
    return {name: _messages(said, judged=True) for name, said in sides.items()} | offered | rest


def _messages(said: Conversation, *, judged: bool) -> list[dict[str, Any]]:
    """Messages as dictionaries. In judged rows the weights of the prompt follow from the format and are not written."""
    return [_message(one) | ({} if one.weight is None or (judged and one.weight == 0) else {"weight": one.weight}) for one in said]


def _message(one: Message) -> dict[str, Any]:
    made = one.to_dict()
    return {name: value for name, value in made.items() if name != "content" or value or not one.tool_calls}
