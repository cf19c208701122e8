"""The strict reader of JSON: what it takes, and how it says what it does not take."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.data.jsonlines import MAX_DEPTH, json_document, json_lines, parse
from hone.data.openfile import MAX_ROW
from hone.data.rows import Bad, Item, Remark, Row
from tests.data.kit import fault, told

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=12,
)


def lines(data: bytes) -> list[Item]:
    return list(json_lines(io.BytesIO(data), "f.jsonl"))


def document(data: bytes) -> list[Item]:
    return list(json_document(io.BytesIO(data), "f.json"))


def bad(items: list[Item]) -> list[HoneError]:
    return [item.error for item in items if isinstance(item, Bad)]


@given(VALUES)
def test_what_is_valid_is_read_as_python_reads_it(value: Any) -> None:
    assert parse(json.dumps(value), name="f") == value
    assert parse(json.dumps(value, ensure_ascii=False, indent=1), name="f") == value


@pytest.mark.parametrize(
    ("text", "code", "column", "hint"),
    [
        ('{"a": 1 "b": 2}', "D001", 9, "skip_bad"),
        ('{"a": "\\d"}', "D001", 8, "backslash"),
        ('{"a": "x\ty"}', "D001", 9, "line break"),
        ("{'a': 1}", "D001", 2, "double quotes"),
        ('{"a": 1,}', "D001", 9, "comma"),
        ('{"a": 1} {"a": 2}', "D001", 10, "one JSON value a line"),
        ('{"a": 1, "b": 2, "a": 3}', "D006", 18, "one of the two"),
        ('{"x": {"k": 1, "k": 2}}', "D006", 16, "one of the two"),
        ('{"a": NaN}', "D007", 7, "null"),
        ('{"a": 5, "b": ' + "1" * 5000 + "}", "D007", 15, "text in quotes"),
        ('{"a": [1, -Infinity]}', "D007", 11, "null"),
        ('{"a": 1e999}', "D007", 7, "null"),
        ('{"a": "cut \\ud83d"}', "D019", 12, "skip_bad"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, code: str, column: int, hint: str) -> None:
    (error,) = bad(lines(f'{{"a": 0}}\n{text}\n'.encode()))
    told(error, code, where=f"f.jsonl:2:{column}", fix=hint)


def test_a_caret_stands_under_the_place_also_after_wide_letters_and_in_long_lines() -> None:
    (error,) = bad(lines('{"a": "你好" "b": 2}\n'.encode()))
    shown, caret = error.what.splitlines()[1:]
    assert shown == '  {"a": "你好" "b": 2}'
    assert caret.index("^") == len('  {"a": "你好" ') + 2, "each of the two letters takes two places"
    (error,) = bad(lines(b'{"a": "' + b"x" * 500 + b'" "b": 2}\n'))
    shown, caret = error.what.splitlines()[1:]
    assert len(shown) <= 60
    assert shown[caret.index("^")] == '"'


def test_the_place_in_a_document_of_many_lines_is_its_line_and_column() -> None:
    with fault("D001", where="f.json:3:8"):
        document(b'[\n {"a": 1},\n {"b": tru}\n]')


@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, '{"a":' * 65 + "1" + "}" * 65])
def test_deep_nesting_is_refused(text: str) -> None:
    (error,) = bad(lines(text.encode()))
    told(error, "D004", where="f.jsonl:1", fix="flatten")


def test_brackets_inside_texts_are_not_nesting() -> None:
    value = {"code": "[{" * 500, "deep": [[[1]]]}
    assert parse(json.dumps(value), name="f") == value
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, name="f") is not None


def test_rows_have_the_number_of_their_line_and_blank_lines_are_passed_over() -> None:
    items = lines(b'{"a": 1}\n\n  \r\n{"a": 2}\r\n{"a": 3}')
    assert [item.origin for item in items if isinstance(item, Row)] == [Origin("f.jsonl", 1), Origin("f.jsonl", 4), Origin("f.jsonl", 5)]
    assert [item.text for item in items if isinstance(item, Remark)] == ["2 blank lines passed over"]


def test_a_line_separator_inside_a_text_does_not_end_the_row() -> None:
    (row,) = lines('{"a": "one\u2028two\u0085three"}\n'.encode())
    assert isinstance(row, Row)
    assert row.columns == {"a": "one\u2028two\u0085three"}


def test_bytes_that_are_not_utf8_name_the_line_and_the_likely_encoding() -> None:
    for encoding, text in (
        ("gb18030", "今天天气怎么样，我想去公园散步。"),
        ("cp1252", "Café crème, garçon!"),
        ("shift_jis", "これはペンです。"),
    ):
        (error,) = bad(lines(b'{"a": "ok"}\n{"a": "' + text.encode(encoding) + b'"}\n'))
        told(error, "D003", where="f.jsonl:2:", what=encoding, fix="hone data fix")


def test_a_document_that_is_not_utf8_names_the_line() -> None:
    with fault("D003", where="f.json:2:8"):
        document(b'[\n{"a": "\xe9t\xe9"}\n]')


@pytest.mark.parametrize(("line", "what"), [(b"[1, 2]", "a list"), (b"7", "the value 7"), (b"null", "the value null")])
def test_a_row_that_is_no_object_is_refused(line: bytes, what: str) -> None:
    (error,) = bad(lines(line))
    told(error, "D012", where="f.jsonl:1", what=what)


def test_a_document_written_over_lines_in_a_jsonl_file_is_recognised_as_that() -> None:
    first = bad(lines(b'{\n"a": 1\n}\n'))[0]
    told(first, "D001", where="f.jsonl:1:1", fix=".json")


@pytest.mark.parametrize(
    "text",
    [
        b'[{"a": 1}, {"a": 2}]',
        b'{"data": [{"a": 1}, {"a": 2}]}',
        b'{"version": 2, "rows": [{"a": 1}, {"a": 2}], "tags": []}',
        b'{"whatever": [{"a": 1}, {"a": 2}], "name": "x"}',
        b'[[{"a": 1}], [{"a": 2}]]',
    ],
)
def test_a_document_is_a_list_or_an_object_with_one_list(text: bytes) -> None:
    assert [item.columns["a"] for item in document(text) if isinstance(item, Row)] == [1, 2]


def test_a_document_with_one_conversation_is_one_row() -> None:
    (row,) = document(b'{"messages": [{"role": "user", "content": "hi"}]}')
    assert isinstance(row, Row)
    assert list(row.columns) == ["messages"]


def test_a_list_of_texts_is_raw_text() -> None:
    assert [item.columns for item in document(b'["one", "two"]') if isinstance(item, Row)] == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("text", [b"7", b'{"a": {"b": 1}, "c": {"b": 2}}', b'{"a": [{"x": 1}], "b": [{"x": 2}]}'])
def test_a_document_without_one_list_is_refused(text: bytes) -> None:
    with fault("D013", where="f.json"):
        document(text)


def test_a_row_that_is_too_large_is_passed_over_and_the_next_is_read() -> None:
    items = lines(b'{"a": "' + b"x" * MAX_ROW + b'"}\n{"a": "short"}\n')
    told(bad(items)[0], "D008", where="f.jsonl:1", fix="several rows")
    assert [item.columns for item in items if isinstance(item, Row)] == [{"a": "short"}]
