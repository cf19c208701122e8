"""The part of Go's template language that our Modelfiles use: enough to render what we write, and to check it against Jinja.

Known are text, {{ .Field }}, {{ $.Field }}, variables of a range with index and value, `if`, `else if`, `else`, `range`, `end`,
and in conditions `and`, `or`, `not`, `eq`, `ne`, `len`, `slice`, with {{- and -}} for white space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hone.core.errors import HoneError

_TAG = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\(|\)|[^\s()]+')
_RANGE = re.compile(r"range\s+\$(\w+),\s*\$(\w+)\s*:=\s*(.+)")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "r": "\r"}


@dataclass(slots=True)
class _Node:
    """Text, a value, a choice or a loop."""

    kind: str
    words: str = ""
    body: list[_Node] = field(default_factory=list)
    other: list[_Node] = field(default_factory=list)


def quoted(text: str) -> str:
    """A text constant, as Go writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r") + '"'


def render(source: str, data: Mapping[str, Any]) -> str:
    """The text that a template makes of fields. Raises M086 for what this part of the language does not have."""
    nodes, rest = _parse(_tokens(source), 0)
    if rest is not None:
        raise _unknown(f"a stray {{{{ {rest} }}}}")
    return _write(nodes, {"$": data})


def _unknown(what: str) -> HoneError:
    return HoneError("M086", f"the template of the Modelfile uses {what}", where="TEMPLATE", fix="write it with if, range and fields only")


def _tokens(source: str) -> list[tuple[str, str]]:
    """("text", ...) and ("tag", ...), white space trimmed as the dashes ask."""
    found: list[tuple[str, str]] = []
    at, trim = 0, False
    for tag in _TAG.finditer(source):
        text = source[at : tag.start()]
        text = text.lstrip() if trim else text
        found += [("text", text.rstrip() if tag[1] else text), ("tag", tag[2])]
        at, trim = tag.end(), bool(tag[3])
    rest = source[at:]
    return [*found, ("text", rest.lstrip() if trim else rest)]


def _parse(tokens: list[tuple[str, str]], depth: int) -> tuple[list[_Node], str | None]:
    """Nodes up to the `end` or `else` that closes this block, which is handed back. The list is used up."""
    nodes: list[_Node] = []
    while tokens:
        kind, words = tokens.pop(0)
        if kind == "text":
            nodes += [_Node("text", words)] if words else []
            continue
        if words == "end" or words == "else" or words.startswith("else "):
            return nodes, words
        nodes.append(_block(words, tokens, depth) if words.startswith(("if ", "range ")) else _Node("value", words))
    return nodes, None


def _block(words: str, tokens: list[tuple[str, str]], depth: int) -> _Node:
    if depth > 20:
        raise _unknown("blocks nested too deeply")
    kind, _, condition = words.partition(" ")
    body, closed = _parse(tokens, depth + 1)
    other: list[_Node] = []
    if closed is not None and closed.startswith("else if "):
        other = [_block(closed.removeprefix("else "), tokens, depth + 1)]
    elif closed == "else":
        other, closed = _parse(tokens, depth + 1)
    if closed is None:
        raise _unknown(f"{{{{ {words} }}}} without an end")
    return _Node(kind, words if kind == "range" else condition, body, other)


def _write(nodes: list[_Node], scope: dict[str, Any]) -> str:
    return "".join(_one(node, scope) for node in nodes)


def _one(node: _Node, scope: dict[str, Any]) -> str:
    if node.kind == "text":
        return node.words
    if node.kind == "value":
        value = _value(node.words, scope)
        return "" if value is None else str(value)
    if node.kind == "if":
        return _write(node.body if _value(node.words, scope) else node.other, scope)
    found = _RANGE.fullmatch(node.words)
    if found is None:
        raise _unknown(f"{{{{ {node.words} }}}}")
    items = _value(found[3], scope) or []
    return "".join(_write(node.body, scope | {found[1]: i, found[2]: item}) for i, item in enumerate(items))


def _value(words: str, scope: Mapping[str, Any]) -> Any:
    """The value of an expression: a word, or a function with arguments."""
    parts = _WORD.findall(words)
    value = _call(parts, scope)
    if parts:
        raise _unknown(f"{{{{ {words} }}}}")
    return value


def _call(parts: list[str], scope: Mapping[str, Any]) -> Any:
    """Read one expression from the front of the list."""
    if not parts:
        raise _unknown("an empty expression")
    first = parts[0]
    if first not in _FUNCTIONS:
        return _atom(parts, scope)
    parts.pop(0)
    arguments = []
    while parts and parts[0] != ")":
        arguments.append(_atom(parts, scope))
    return _FUNCTIONS[first](*arguments)


def _atom(parts: list[str], scope: Mapping[str, Any]) -> Any:
    word = parts.pop(0)
    if word == "(":
        value = _call(parts, scope)
        if not parts or parts.pop(0) != ")":
            raise _unknown("an unclosed bracket")
        return value
    if word.startswith('"'):
        return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), word[1:-1])
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    return _field(word, scope)


def _field(word: str, scope: Mapping[str, Any]) -> Any:
    """.A, $.A, $name or $name.A.B; what is not there is nothing."""
    name, *path = word.split(".")
    if name in ("", "$"):
        value: Any = scope["$"]
    elif name.startswith("$") and name[1:] in scope:
        value = scope[name[1:]]
    else:
        raise _unknown(f"'{word}'")
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _and(*values: Any) -> Any:
    return next((value for value in values if not value), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if value), values[-1])


_FUNCTIONS: Mapping[str, Any] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not value,
    "eq": lambda value, *others: value in others,
    "ne": lambda a, b: a != b,
    "len": lambda value: len(value or ()),
    "slice": lambda value, start=0, stop=None: value[start:stop],
}
