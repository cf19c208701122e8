"""Recognises how the columns of a source make an example, and says so before anything runs."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hone.core.errors import HoneError
from hone.core.registry import Registry, nearest
from hone.core.types import Example, Origin
from hone.data.rows import Row
from hone.data.turns import from_json, refuse_media

SAMPLE = 200
"""Rows looked at to recognise a format."""
TRUTH = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
"""What stands for a yes or a no; 1 and 0 equal True and False."""
QUESTIONS = ("instruction", "question", "prompt", "query", "messages", "conversations", "input")

TEXT = frozenset({"text"})
NUMBER = frozenset({"number"})
FLAG = frozenset({"flag"})
MESSAGES = frozenset({"messages", "empty"})
SHARES = frozenset({"shares", "empty"})
EXCHANGES = frozenset({"exchanges"})
OBJECT = frozenset({"object"})
LIST = frozenset({"texts", "objects", "list"}) | MESSAGES | SHARES | EXCHANGES


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that a format reads, the column names it is known under, and what becomes of it."""

    name: str
    becomes: str
    kinds: frozenset[str] = TEXT
    names: tuple[str, ...] = ()
    """Other names of the column, the likeliest first; its own name always comes before them."""
    required: bool = True

    def find(self, columns: Mapping[str, frozenset[str]], asked: Mapping[str, str]) -> str | None:
        """The column that holds it. A column that is null everywhere may be anything."""
        if self.name in asked:
            return asked[self.name] if self.fits(columns.get(asked[self.name], frozenset())) else None
        return next((name for name in (self.name, *self.names) if name in columns and self.fits(columns[name])), None)

    def fits(self, kinds: frozenset[str]) -> bool:
        return bool(kinds & self.kinds) or "null" in kinds


@dataclass(frozen=True, slots=True)
class Format:
    """A shape in which people write examples."""

    name: str
    about: str
    fields: tuple[Field, ...]
    read: Callable[[Mapping[str, Any], Origin], Example]
    """From the fields that are there (never null unless required) to an example."""
    alone: bool = False
    """Takes the source's columns in their order whatever their names, and only if there are no others."""

    def bind(self, columns: Mapping[str, frozenset[str]], asked: Mapping[str, str]) -> dict[str, str] | None:
        """Field -> column, or None where a required one is missing. `asked` is what the user has set himself."""
        if any(name not in self.names for name in asked):
            return None
        if self.alone and not asked:
            fits = len(columns) == len(self.fields) and all(map(Field.fits, self.fields, columns.values()))
            return dict(zip(self.names, columns, strict=True)) if fits else None
        bound: dict[str, str] = {}
        for field in self.fields:
            column = field.find({name: kinds for name, kinds in columns.items() if name not in bound.values()}, asked)
            if column is not None:
                bound[field.name] = column
            elif field.required or field.name in asked:
                return None
        return bound

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)


@dataclass(frozen=True)
class Layout:
    """A format, and which column of the source is which field of it."""

    format: Format
    bound: Mapping[str, str]
    kinds: Mapping[str, frozenset[str]]
    """Kind of every column of the source."""

    def read(self, row: Row) -> Example:
        """The example that a row makes. Raises D005, D011, D018, D020, D022 ... D024 and S001."""
        columns, origin = row.columns, row.origin
        refuse_media(columns, origin)
        fields: dict[str, Any] = {}
        for field in self.format.fields:
            name = self.bound.get(field.name)
            if name is None:
                continue
            if name not in columns and field.required:
                what = f"this row has no column '{name}'; it has {_listed(columns)}"
                raise HoneError("D011", what, where=str(origin), fix="mend the row, or leave such rows out with data.skip_bad=true")
            value = columns.get(name)
            self._same_kind(name, value, origin)
            if value is not None or field.required:
                fields[field.name] = value
        example = self.format.read(fields, origin)
        used = set(self.bound.values())
        rest = {key: value for key, value in columns.items() if key not in used}
        return replace(example, origin=origin, columns=rest | dict(example.columns))

    def _same_kind(self, name: str, value: Any, origin: Origin) -> None:
        usual, found = self.kinds[name], family(value)
        if value is None or "null" in usual or found in usual or found in (families := {_FAMILIES.get(kind, kind) for kind in usual}):
            return
        if _FAMILIES.get(_kind(value)) not in families:
            seen = next(iter(sorted(families - {"boolean"}) or ["boolean"]))
            what = f"'{name}' is {_NAMES[found]} here and {_NAMES[seen]} in other rows"
            fix = "give the column one kind of value, or leave such rows out with data.skip_bad=true"
            raise HoneError("D005", what, where=str(origin), fix=fix)

    def describe(self) -> list[str]:
        """Lines for the user: `column -> what becomes of it`, and what is not used."""
        shown = [f"{self.bound[field.name]} -> {field.becomes}" for field in self.format.fields if field.name in self.bound]
        unused = [name for name in self.kinds if name not in self.bound.values()]
        return shown + ([f"not used: {', '.join(unused)}"] if unused else [])


def recognise(rows: Sequence[Row], formats: Registry[Format], *, asked: str = "auto", columns: Mapping[str, str] | None = None) -> Layout:
    """How the rows of a source are read, by its first rows. `columns` (ours -> theirs) comes before what is recognised.

    Raises C003 (no such format), D010 (no format fits) and D011 (the asked one does not).
    """
    kinds, renamed = columns_of(rows), dict(columns or {})
    where = rows[0].origin.source
    for ours, theirs in renamed.items():
        if theirs not in kinds:
            what = f"data.columns maps '{ours}' to '{theirs}', and there is no such column"
            raise HoneError("D011", what, where=where, fix=nearest(theirs, kinds))
    chosen = [formats[name] for name in (formats if asked == "auto" else [asked])]
    for format in chosen:
        bound = format.bind(kinds, renamed)
        if bound is not None and (asked != "auto" or not format.alone or _all_strange(kinds, formats)):
            return Layout(format, bound, kinds)
    if asked != "auto":
        raise _lacking(chosen[0], kinds, renamed, where)
    raise _unknown(kinds, renamed, formats, where)


def _all_strange(columns: Iterable[str], formats: Registry[Format]) -> bool:
    """Whether no column has, or nearly has, a known name: then two of them can only be question and answer."""
    return not known_names(formats).intersection(columns) and not _misspelt(columns, formats)


def columns_of(rows: Iterable[Row]) -> dict[str, frozenset[str]]:
    """The columns that at least half of some rows have, and the usual kind of each."""
    rows = list(rows)
    names = Counter(name for row in rows for name in row.columns)
    common = [name for name, count in names.items() if 2 * count >= len(rows)]
    return {name: _usual_kind([row.columns.get(name) for row in rows]) for name in common}


def _usual_kind(values: list[Any]) -> frozenset[str]:
    there = [value for value in values if value is not None]
    if not there:
        return frozenset({"null"})
    kind = Counter(_kind(value) for value in there).most_common(1)[0][0]
    flags = all(isinstance(value, bool | int | float | str) and _flag(value) is not None for value in there)
    return frozenset({kind, "flag"}) if flags else frozenset({kind})


def _flag(value: Any) -> bool | None:
    return TRUTH.get(value.strip().lower() if isinstance(value, str) else value)


def flag(value: Any, origin: Origin) -> bool:
    """A yes or no. Raises D023 for anything else."""
    found = _flag(value) if isinstance(value, bool | int | float | str) else None
    if found is None:
        what = f"a label of wanted and unwanted answers is true or false, not {value!r}"
        raise HoneError("D023", what, where=str(origin), fix="write true or false")
    return found


def _kind(value: Any) -> str:
    """The kind of a value; a text that is the JSON of a conversation counts as one."""
    if isinstance(value, str) and value[:64].lstrip()[:1] == "[" and ('"role"' in value or '"from"' in value):
        try:
            value = from_json(value, Origin("", 0))
        except HoneError:
            return "text"
    if not isinstance(value, list):
        return family(value)
    if not value:
        return "empty"
    if all(isinstance(item, str) for item in value):
        return "texts"
    if not all(isinstance(item, Mapping) for item in value):
        return "list"
    names = set().union(*value)
    if names & {"role", "from"}:
        return "messages" if "role" in names else "shares"
    return "exchanges" if names & {"input", "instruction", "question"} and names & {"output", "answer", "response"} else "objects"


_FAMILIES = dict.fromkeys(LIST, "list") | {"flag": "boolean"}
_NAMES = {
    "text": "a text",
    "number": "a number",
    "boolean": "true or false",
    "list": "a list",
    "object": "an object",
    "other": "something else",
}


def family(value: Any) -> str:
    """The kind of a value without looking into it."""
    if value is None:
        return "null"
    kinds = {bool: "boolean", str: "text", int: "number", float: "number", list: "list", dict: "object"}
    return kinds.get(type(value), "other")


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(map(str, columns)) or "none"


def known_names(formats: Registry[Format]) -> set[str]:
    """All column names that some format knows."""
    return {name for _, format in formats.items() for field in format.fields for name in (field.name, *field.names)}


def _misspelt(columns: Iterable[str], formats: Registry[Format]) -> dict[str, str]:
    """Columns whose names look like one that is known: theirs -> known."""
    known = known_names(formats)
    free = known - set(columns)
    close = {name: difflib.get_close_matches(name.lower(), free, n=1, cutoff=0.75) for name in columns if name not in known}
    return {name: found[0] for name, found in close.items() if found}


def _unknown(kinds: Mapping[str, frozenset[str]], renamed: Mapping[str, str], formats: Registry[Format], where: str) -> HoneError:
    misspelt = _misspelt(kinds, formats)
    asking = [name for name in kinds if name in QUESTIONS]
    what = f"no known format fits the columns {_listed(kinds)}"
    if renamed:
        what += f" with data.columns {dict(renamed)}"
    texts = [name for name in kinds if "text" in kinds[name] and not name.lower().endswith("id")]
    question, answer, *_ = [*texts, "QUESTION", "ANSWER"] if len(texts) != 1 else [texts[0], "ANSWER"]
    example = f"data.columns={{prompt: {question}, completion: {answer}}}"
    fix = f"say which column is which, as in {example}, or rename them to a format of the list"
    if misspelt:
        fix = "did you mean " + ", ".join(f"'{known}' for '{name}'" for name, known in misspelt.items()) + f"? Otherwise {fix}"
    elif asking:
        what = f"the answers are missing: there is {_listed(asking)}, and no column that answers it (columns: {_listed(kinds)})"
        fix = f"add a column output, response or answer; or {fix}"
    return HoneError("D010", f"{what}\n{_table(formats)}", where=where, fix=fix)


def _table(formats: Registry[Format]) -> str:
    needed = {name: ", ".join(f.name for f in format.fields if f.required) for name, format in formats.items() if not format.alone}
    return "\n".join(["  known formats and the columns they need:", *(f"  {name:<18}{columns}" for name, columns in needed.items())])


def _lacking(format: Format, kinds: Mapping[str, frozenset[str]], renamed: Mapping[str, str], where: str) -> HoneError:
    strange = [name for name in renamed if name not in format.names]
    if strange:
        what = f"the format {format.name} has no column '{strange[0]}' that data.columns could map"
        return HoneError("D011", what, where=where, fix=nearest(strange[0], format.names))
    missing = [field for field in format.fields if field.required and field.find(kinds, renamed) is None]
    what = f"the format {format.name} needs {_listed(field.name for field in missing)}, and the columns are {_listed(kinds)}"
    if not missing:
        what = f"the format {format.name} needs exactly two columns of text, and the columns are {_listed(kinds)}"
    ours = missing[0].name if missing else "prompt"
    theirs = next(iter(difflib.get_close_matches(ours, kinds, n=1)), "YOUR_COLUMN")
    fix = f"name the columns, as in data.columns={{{ours}: {theirs}}}, or let data.format=auto recognise them"
    return HoneError("D011", what, where=where, fix=fix)
