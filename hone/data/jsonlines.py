"""A strict reader for JSON and JSON lines: what is wrong is said with file, line and column, and a caret under it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from typing import Any, BinaryIO

from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.data.openfile import caret, decode, lines, too_long
from hone.data.rows import Bad, Item, Remark, Row

MAX_DEPTH = 64
_ROWS_UNDER = ("data", "train", "rows", "examples", "instances", "items")
_LEAVE_OUT = "mend the line, or leave such lines out with data.skip_bad=true"
_HINTS = {
    "Invalid \\escape": "write a backslash as two: \\\\",
    "Invalid control character": "write a line break inside a text as \\n, a tab as \\t",
    "Expecting property name enclosed in double quotes": "names stand in double quotes, and no comma stands before }",
    "Unterminated string": "a closing quote is missing; a text must not go on in the next line",
    "Extra data": "one JSON value a line",
}


class _Refused(ValueError):
    """Raised while decoding for what JSON's grammar, or ours, does not allow; `token` is looked up in the text."""

    def __init__(self, code: str, what: str, token: str) -> None:
        super().__init__(what)
        self.code, self.what, self.token = code, what, token


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        name = json.dumps(twice, ensure_ascii=False)
        raise _Refused("D006", f"the name {name} stands twice in one object", re.escape(name))
    return made


def _constant(name: str) -> Any:
    raise _Refused("D007", f"{name} is not a JSON number", rf"(?<![\w\"]){re.escape(name)}")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise _Refused("D007", f"{text} is too large for a number", re.escape(text))
    return number


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:  # Python refuses thousands of digits, whose conversion takes quadratic time
        raise _Refused("D007", f"a number of {len(text):,} digits is too large", re.escape(text)) from None


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int)
_FIXES = {"D006": "keep one of the two", "D007": "write null, a number, or a text in quotes"}


def parse(text: str, *, name: str, line: int = 1) -> Any:
    """One JSON value. `line` is the number of the text's first line in the file `name`.

    Raises D001 (malformed), D004 (nested more than 64 deep), D006 (a name twice), D007 (NaN, Infinity, 1e999, thousands of digits) or
    D019 (half a character).
    """
    try:
        value = _DECODER.decode(text)
    except JSONDecodeError as error:
        hint = next((hint for start, hint in _HINTS.items() if error.msg.startswith(start)), "")
        what = f"this is not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise _at(text, error.pos, HoneError("D001", what, fix=f"{hint}; {_LEAVE_OUT}".removeprefix("; ")), name=name, line=line) from None
    except _Refused as error:
        fault = HoneError(error.code, error.what, fix=f"{_FIXES[error.code]}; {_LEAVE_OUT}")
        raise _at(text, _place(text, error), fault, name=name, line=line) from None
    except RecursionError:
        raise _too_deep(name, line) from None
    if (text.count("[") + text.count("{")) > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep(name, line)
    if (half := re.search(r"\\u[dD][89a-fA-F]", text)) and _has_half(value):
        fault = HoneError("D019", "half of a character (a lone \\ud8.. or \\udc..) cannot be written in any text", fix=_LEAVE_OUT)
        raise _at(text, half.start(), fault, name=name, line=line)
    return value


def _place(text: str, error: _Refused) -> int:
    """Where the refused token stands: for a doubled name its second place."""
    found = [match.start() for match in re.finditer(error.token, text)]
    return found[min(1, len(found) - 1) if error.code == "D006" else 0] if found else 0


def _at(text: str, position: int, error: HoneError, *, name: str, line: int) -> HoneError:
    """The same error with its place, and the line with a caret under it."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    column = position - start + 1
    shown = caret(text[start : end if end >= 0 else len(text)].rstrip("\r"), column)
    number = line + text.count("\n", 0, position)
    return HoneError(error.code, f"{error.what}\n{shown}", where=f"{name}:{number}:{column}", fix=error.fix)


def _too_deep(name: str, line: int) -> HoneError:
    fix = "rows are objects with texts and lists of messages; flatten it, or leave it out with data.skip_bad=true"
    return HoneError("D004", f"values are nested more than {MAX_DEPTH} deep", where=f"{name}:{line}", fix=fix)


def _depth(value: Any) -> int:
    """How deep lists and objects are nested, without recursion."""
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def _has_half(value: Any) -> bool:
    return re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)) is not None


def json_lines(stream: BinaryIO, name: str) -> Iterator[Item]:
    """Rows of a JSON lines file. Blank lines are passed over with a remark; a bad line is given as such."""
    blank = 0
    for number, raw in lines(stream):
        if raw is not None and not raw.strip():
            blank += 1
            continue
        yield guarded(Origin(name, number), _line, raw)
    if blank:
        yield Remark(name, f"{blank} blank line{'s' if blank > 1 else ''} passed over")


def _line(origin: Origin, raw: bytes | None) -> Mapping[str, Any]:
    name, number = origin
    if raw is None:
        raise too_long(name, number)
    text = decode(raw.rstrip(b"\r\n"), name=name, number=number)
    if text.strip() in ("{", "["):
        fix = "write each row in one line, or call the file .json if it is one document"
        raise HoneError("D001", "a row of JSON lines must be whole in its line", where=f"{name}:{number}:1", fix=fix)
    return columns_of(origin, parse(text, name=name, line=number))


def guarded(origin: Origin, read: Callable[[Origin, Any], Mapping[str, Any]], raw: Any) -> Row | Bad:
    """A row, or the reason why it is none."""
    try:
        return Row(origin, read(origin, raw))
    except HoneError as error:
        return Bad(origin, error)


def columns_of(origin: Origin, value: Any) -> Mapping[str, Any]:
    """A JSON value as a row: an object, also alone in a list, or a text, which becomes the column `text`. Raises D012 for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return value[0]
    if isinstance(value, str):
        return {"text": value}
    kind = "a list" if isinstance(value, list) else f"the value {json.dumps(value)}"
    what = f"a row must be an object with columns, and this is {kind}"
    raise HoneError("D012", what, where=str(origin), fix='write {"column": value, ...}')


def line_of(columns: Mapping[str, Any]) -> str:
    """A row as one line that `parse` takes: what tables write for an empty number becomes null, dates and the like become texts."""
    try:
        line = json.dumps(columns, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:
        line = json.dumps(_without_nan(columns), ensure_ascii=False, default=str)
    return f"{line}\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_document(stream: BinaryIO, name: str) -> Iterator[Item]:
    """Rows of one JSON document: a list, or an object with a list of rows in it. Raises D001 to D007 and D013."""
    value = parse(_whole(stream, name), name=name)
    for number, item in enumerate(_rows_in(value, name), start=1):
        yield guarded(Origin(name, number), columns_of, item)


def _whole(stream: BinaryIO, name: str) -> str:
    data = stream.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        start, number = data.rfind(b"\n", 0, error.start) + 1, data.count(b"\n", 0, error.start) + 1
        end = data.find(b"\n", error.start)
        return decode(data[start : end if end >= 0 else len(data)], name=name, number=number)


def _rows_in(value: Any, name: str) -> list[Any]:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise HoneError("D013", "the document holds no rows", where=name, fix="write a list of objects")
    listed = {key: inner for key, inner in value.items() if isinstance(inner, list) and all(isinstance(item, dict) for item in inner)}
    if any(isinstance(item, dict) and item.keys() & {"role", "from"} for inner in listed.values() for item in inner[:1]):
        return [value]
    for key in (*_ROWS_UNDER, *listed):
        if key in listed and (key in _ROWS_UNDER or len(listed) == 1):
            return listed[key]
    if value and all(isinstance(inner, str) for inner in value.values()):
        return [value]
    found = ", ".join(list(value)[:6]) or "nothing"
    fix = "write a list of objects, or an object with one list of objects in it"
    raise HoneError("D013", f"no list of rows in this document; its names are {found}", where=name, fix=fix)
