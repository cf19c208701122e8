"""From sources to groups that can be trained on: read, checked, tokenised, fitted, split, and every row accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.core.errors import HoneError
from hone.core.files import sha256_of
from hone.core.types import Message, Shape
from hone.data.cache import Groups
from hone.data.desk import Desk, Entry
from hone.data.labels import distribution
from hone.data.layout import Layout
from hone.data.ledger import Ledger
from hone.data.notices import Notice, Notices, advice
from hone.data.reading import Reading
from hone.data.settings import DataSettings
from hone.data.split import hash_of, held_out_keys
from hone.data.tokenise import Tokeniser
from hone.data.unknown import Script

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone.data.chat import ChatTemplate


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a run needs from its data."""

    groups: Groups
    held_out: Groups
    ledger: Ledger
    layouts: Mapping[str, Layout]
    """File -> the format that was recognised, and which column is what."""
    notices: list[Notice]
    """What a person should know. Nothing of it stops a run."""
    sources: list[dict[str, Any]]
    """Name, rows and, for files, SHA-256 of everything that was read."""
    fingerprint: str
    """SHA-256 of all that is trained on."""
    split: str
    """SHA-256 of the prompts that are held out."""
    classes: tuple[str, ...] = ()
    """The classes that a classifier tells apart."""

    def describe(self) -> list[str]:
        """A line for each file: rows, format, and what becomes of its columns."""
        rows = {source["source"]: source["rows"] for source in self.sources}
        return [f"{name}: {rows[name]:,} rows, {one.format.name}: {', '.join(one.describe())}" for name, one in self.layouts.items()]


def prepare(
    settings: DataSettings,
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    *,
    shape: Shape = "single",
    facts: str = "",
    classes: Sequence[str] = (),
    context: int | None = None,
) -> Prepared:
    """Read and tokenise all data of a run, for an objective of this shape that knows these facts (see `Objective`).

    `classes` are those of a classifier; where none are given they are found. `context` is the longest sequence that the model takes.

    Raises C004 (pairs that are to be split), the fault of the first row that cannot be used, with the numbers of all of them, the
    commonest fault where no row is left to learn from (D029 if all weights are 0), and D034 where the tokenizer cannot write the text
    or the marks of the template.
    """
    if shape != "single" and settings.overflow == "split":
        fix = "set data.overflow to truncate, drop or error"
        raise HoneError("C004", "answers that are compared or judged cannot be split into pieces", where="data.overflow", fix=fix)
    limit = min(settings.max_length, context or settings.max_length)
    tokeniser = Tokeniser(tokenizer, template, learn=settings.learn, shape=shape, facts=facts, classes=classes)
    desk = Desk(settings, tokeniser, Script(tokenizer), limit=limit, most=context)
    if limit < settings.max_length:
        desk.notices.add(
            "M002", f"the model takes {limit:,} tokens at most: data.max_length is lowered from {settings.max_length:,} to that"
        )
    reading = Reading.of(settings)
    train = desk.take(reading.sources(settings.sources, seed=settings.seed))
    aside = desk.take(reading.source(settings.held_out)) if isinstance(settings.held_out, str) else []
    first = settings.sources[0].path
    desk.refusals.check()
    desk.script.check(first)
    if isinstance(settings.held_out, str):
        _compare(train, aside, desk.notices)
    else:
        keys = held_out_keys([entry.key for entry in train], fraction=settings.held_out, seed=settings.seed)
        train, aside = [entry for entry in train if entry.key not in keys], [entry for entry in train if entry.key in keys]
    if not train:
        raise desk.refusals.nothing_left(first)
    if not desk.script.writes(desk.cache.group(train[0].indices[0])[0].tokens):
        raise _unwritable_marks(desk, template, first)
    return _close(desk, train, aside, reading)


def _compare(train: list[Entry], aside: list[Entry], notices: Notices) -> None:
    """D030 for training rows whose prompt also stands in the held-out source."""
    keys = {entry.key for entry in aside}
    for entry in train:
        if entry.key in keys:
            notices.add("D030", "its prompt also stands in the held-out source, so the evaluation is not honest", entry.origin)


def _unwritable_marks(desk: Desk, template: ChatTemplate, where: str) -> HoneError:
    """D034 for a chat template whose own text the tokenizer cannot write, so that all rows would hold unknown tokens."""
    probe = template.text((Message("user", "a"), Message("assistant", "a")))
    marks = ", ".join(map(repr, desk.script.missing(probe)))
    what = f"the tokenizer cannot write {marks}, which the chat template '{template.name}' puts into every row"
    fix = "take a model whose tokenizer can, or a template without them: data.template=FILE.jinja"
    return HoneError("D034", f"{what}\n  {desk.script.summary}".rstrip(), where=where, fix=fix)


def _close(desk: Desk, train: list[Entry], aside: list[Entry], reading: Reading) -> Prepared:
    """Write the ledger and put everything together."""
    for entry in aside:
        desk.ledger.held_out(entry.origin, entry.learned)
    for entry in train:
        learned = entry.learned * entry.copies
        if entry.cut:
            desk.ledger.truncated(entry.origin, learned, entry.cut)
        else:
            desk.ledger.trained(entry.origin, learned)
    desk.ledger.total(desk.rows.total())
    desk.ledger.check()
    labels = Counter(entry.label for entry in train if entry.label is not None)
    advice(desk.notices, rows=len(train), labels=distribution(labels, len(train)))
    if desk.script.summary:
        desk.notices.add("D034", desk.script.summary)
    for remark in reading.remarks:
        desk.notices.add("D039", f"{remark.source}: {remark.text}")
    groups = Groups(desk.cache, [index for entry in train for index in entry.indices * entry.copies])
    return Prepared(
        groups=groups,
        held_out=Groups(desk.cache, [index for entry in aside for index in entry.indices]),
        ledger=desk.ledger,
        layouts=reading.layouts,
        notices=[*desk.refusals.notices(), *desk.notices.all()],
        sources=[_source(name, rows) for name, rows in desk.rows.items()],
        fingerprint=groups.hash(),
        split=hash_of(entry.key for entry in aside),
        classes=tuple(desk.tokeniser.classes),
    )


def _source(name: str, rows: int) -> dict[str, Any]:
    return {"source": name, "rows": rows} | ({"sha256": sha256_of(Path(name))} if Path(name).is_file() else {})
