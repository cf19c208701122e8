"""One turn of a conversation, in any dialect, to a Message: roles, contents, tool calls and tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.core.types import Message, Origin
from hone.data.jsonlines import parse

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "customer": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant",
    "agent": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool", "tool_response": "tool", "tool_result": "tool",
}  # fmt: skip
"""What people call a role -> the name that chat templates know."""
CALLS = ("function_call", "tool_call")
"""Roles whose content is the call itself, as JSON."""
_IMAGES = ("image", "images", "image_url", "image_path", "input_image")
MEDIA = (*_IMAGES, "video", "videos", "video_url", "audio", "audios", "input_audio", "file")
TEXT_PARTS = ("text", "input_text", "output_text")
_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"}
_ONLY_TEXT = "this version learns text only; take the row out, or leave such rows out with data.skip_bad=true"


def messages(turns: Any, origin: Origin) -> tuple[Message, ...]:
    """A list of turns, or its JSON text. Raises D020 where there is no list, and what `message` raises."""
    found = from_json(turns, origin)
    if found is None:
        return ()
    if isinstance(found, Mapping):
        found = [found]
    if not isinstance(found, list):
        raise _fault("D023", f"a conversation is a list of messages, not {_kind(found)}", origin)
    return tuple(message(turn, origin, number) for number, turn in enumerate(found, start=1))


def message(turn: Any, origin: Origin, number: int = 1) -> Message:
    """One turn with role and content (or from and value). `number` counts it in its conversation, for errors.

    Raises D018 (a tool call that cannot be read), D022 (no content), D023 (content that is not text), D024 (unknown role)
    or S001 (an image, a file or an address).
    """
    if not isinstance(turn, Mapping):
        raise _fault("D023", f"a message is an object with role and content, not {_kind(turn)}", origin, number)
    asked, content = _first(turn, "role", "from"), _first(turn, "content", "value")
    role = _role(asked, turn, origin, number)
    calls = tool_calls(_first(turn, "tool_calls", "function_call"), origin, number)
    if str(asked).lower() in CALLS:
        calls, content = tool_calls(content, origin, number), None
        if not calls:
            raise _fault("D022", "a function call without the call", origin, number)
    _refuse_media(turn, origin, number)
    return Message(
        role=role,
        content=text_of(content, origin, number, optional=bool(calls)),
        weight=_weight(turn, origin, number),
        tool_calls=calls,
        name=_string(turn.get("name")),
        tool_call_id=_string(turn.get("tool_call_id")),
        reasoning=_string(_first(turn, "reasoning_content", "reasoning", "thinking")),
    )


def text_of(content: Any, origin: Origin, number: int = 0, *, optional: bool = False) -> str:
    """Content as text; the text parts of a list are joined. Absent content is empty text if it is optional."""
    if isinstance(content, str):
        return content
    if content is None:
        if optional:
            return ""
        what = "the content is null; only a turn with tool calls may go without"
        raise _fault("D022", what, origin, number, fix='write the text, or "" where nothing is said')
    if isinstance(content, list):
        return "".join(_part(part, origin, number) for part in content)
    raise _fault("D023", f"the content is {_kind(content)}, not text", origin, number, fix=f'write it as a text: "{str(content)[:40]}"')


def _part(part: Any, origin: Origin, number: int) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str) and part.get("type", "text") in TEXT_PARTS:
        return str(part["text"])
    if isinstance(part, Mapping) and part.get("type") in MEDIA:
        raise _media(f"a part of type '{part['type']}'", origin, number)
    raise _fault("D023", f"a part of the content is {_kind(part)}, not text", origin, number, fix='write {"type": "text", "text": ...}')


def refuse_media(columns: Mapping[str, Any], origin: Origin) -> None:
    """Raise S001 where a row names images, sounds or files: hone never opens what data points to."""
    _refuse_media(columns, origin, 0)


def _refuse_media(columns: Mapping[str, Any], origin: Origin, number: int) -> None:
    for name in MEDIA:
        value = columns.get(name)
        if value and (not isinstance(value, str) or name != "file"):
            raise _media(f"'{name}': {str(value)[:60]}", origin, number)


def _media(what: str, origin: Origin, number: int) -> HoneError:
    what = f"the row points to something outside of it ({what}), and hone opens no path or address that data names"
    return _fault("S001", what, origin, number, fix=_ONLY_TEXT)


def tool_calls(value: Any, origin: Origin, number: int = 0) -> tuple[Mapping[str, Any], ...]:
    """Calls in the shape of chat templates: {type, [id], function: {name, arguments}}, arguments as an object. Raises D018."""
    found = from_json(value, origin, number)
    if not found:
        return ()
    return tuple(_call(call, origin, number) for call in (found if isinstance(found, list) else [found]))


def _call(call: Any, origin: Origin, number: int) -> Mapping[str, Any]:
    inner = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise _fault("D018", "a tool call has no name", origin, number, fix='write {"name": "...", "arguments": {...}}')
    arguments = from_json(inner.get("arguments", inner.get("parameters")), origin, number)
    if arguments is None or arguments == "":
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise _fault("D018", f"the arguments of '{inner['name']}' are {_kind(arguments)}, not an object", origin, number)
    named = {"id": call["id"]} if isinstance(call.get("id"), str) else {}
    return {"type": "function", **named, "function": {"name": inner["name"], "arguments": arguments}}


def tools(value: Any, origin: Origin) -> tuple[Mapping[str, Any], ...]:
    """What may be called, in the shape of chat templates: {type: function, function: {name, description, parameters}}. Raises D018."""
    found = from_json(value, origin)
    if not found:
        return ()
    listed = found if isinstance(found, list) else [found]
    for tool in listed:
        inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
            raise _fault("D018", "a tool has no name", origin, fix='write {"name": "...", "description": "...", "parameters": {...}}')
    return tuple(tool if isinstance(tool.get("function"), Mapping) else {"type": "function", "function": tool} for tool in listed)


def from_json(value: Any, origin: Origin, number: int = 0) -> Any:
    """The value, read as JSON if it is a text that has the look of a list or an object. Raises D018."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return parse(value, name="")
    except HoneError as error:
        raise _fault("D018", f"this text should be JSON: {error.what}", origin, number, fix=error.fix) from None


def _role(asked: Any, turn: Mapping[str, Any], origin: Origin, number: int) -> str:
    if asked is None:
        what = f"a message needs role and content (or from and value); this one has {', '.join(map(str, turn)) or 'nothing'}"
        raise _fault("D024", what, origin, number)
    name = str(asked).strip().lower()
    if name not in ROLES:
        raise _fault("D024", f"there is no role '{asked}'", origin, number, fix=nearest(name, ROLES))
    return ROLES[name]


def _weight(turn: Mapping[str, Any], origin: Origin, number: int) -> float | None:
    value = _first(turn, "weight", "train")
    if value is None:
        return None
    if not isinstance(value, int | float) or value < 0:
        raise _fault("D023", f"a weight is a number from 0 on, not {value!r}", origin, number, fix="write 0 (not learned) or 1 (learned)")
    return float(value)


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _first(turn: Mapping[str, Any], *names: str) -> Any:
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _fault(code: str, what: str, origin: Origin, number: int = 0, *, fix: str = "") -> HoneError:
    where = f"{origin}, message {number}" if number else str(origin)
    return HoneError(code, what, where=where, fix=fix or "mend the row, or leave such rows out with data.skip_bad=true")
