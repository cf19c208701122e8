"""How a template writes tool calls, found by letting it write one, and the calls that a model writes in the same way."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.core.errors import HoneError
from hone.core.types import Message
from hone.data.chat import ChatTemplate

NAME, KEY, VALUE = "lookup_hone", "word_hone", "value_hone"
_TOOL = {"type": "function", "function": {"name": NAME, "description": "Look up.", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True, slots=True)
class CallFormat:
    """Calls are JSON objects with a name and arguments under these keys, after `opening` where it is not empty."""

    opening: str
    name: str
    arguments: str

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        """What is said beside the calls, and the calls of these tools as a client gets them."""
        start = text.find(self.opening) if self.opening else _first_object(text)
        if start < 0:
            return text, []
        known = {tool["function"]["name"] for tool in tools}
        calls, place = list[dict[str, Any]](), start
        while (place := text.find("{", place)) >= 0:
            found, place = _read(text, place)
            call = found.get("function", found)
            if isinstance(call, Mapping) and call.get(self.name) in known:
                calls.append(_call(str(call[self.name]), call.get(self.arguments, {})))
        return (text[:start].rstrip(), calls) if calls else (text, [])


def _first_object(text: str) -> int:
    """Without a mark, only an answer that is nothing but a call counts as one."""
    return 0 if text.lstrip().startswith(("{", "[")) else -1


def _read(text: str, place: int) -> tuple[dict[str, Any], int]:
    """The JSON object that begins here, and where it ends; an empty one where there is none."""
    try:
        found, end = json.JSONDecoder().raw_decode(text, place)
    except (ValueError, RecursionError):
        return {}, place + 1
    return (found, end) if isinstance(found, dict) else ({}, place + 1)


def _call(name: str, arguments: Any) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": {"name": name, "arguments": text}}


def call_format(template: ChatTemplate) -> CallFormat | None:
    """How this template writes a call; None where it shows the model no tools, or writes calls in another way than JSON."""
    asked = [Message("user", "hello")]
    called = Message("assistant", "", tool_calls=({"type": "function", "function": {"name": NAME, "arguments": {KEY: VALUE}}},))
    try:
        if NAME not in template.text(asked, (_TOOL,)):
            return None
        before = template.text(asked, (_TOOL,), add_generation_prompt=True)
        whole = template.text([*asked, called], (_TOOL,))
    except HoneError:
        return None
    written = whole[len(_common(before, whole)) :]
    place = -1
    while (place := written.find("{", place + 1)) >= 0:
        found = _read(written, place)[0]
        inner = found.get("function", found)
        keys = _keys(inner) if isinstance(inner, Mapping) else None
        if keys is not None:
            return CallFormat(written[:place].strip().removesuffix("[").strip(), *keys)
    return None


def _keys(call: Mapping[str, Any]) -> tuple[str, str] | None:
    """Under which keys the name and the arguments stand."""
    name = next((key for key, value in call.items() if value == NAME), None)
    arguments = next((key for key, value in call.items() if value == {KEY: VALUE} or (isinstance(value, str) and KEY in value)), None)
    return (name, arguments) if name is not None and arguments is not None else None


def _common(a: str, b: str) -> str:
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]
