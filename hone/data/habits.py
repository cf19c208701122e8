"""What a chat template does in ordinary conversations: how answers end, and what a user should know before training with it."""

from __future__ import annotations

from typing import Any, NamedTuple

from hone.core.errors import HoneError
from hone.core.types import Conversation, Message
from hone.data.encoding import Encoder
from hone.data.masking import Located, Shapes
from hone.data.rendering import Tools, dicts

_CHAT = (
    Message("user", "What is two plus two?"),
    Message("assistant", "Four."),
    Message("user", "And three plus three?"),
    Message("assistant", "Six."),
)
_CALL = {"id": "call00001", "type": "function", "function": {"name": "look_up", "arguments": {"word": "sea"}}}
_LOOK_UP: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look up a word.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string", "description": "The word"}}, "required": ["word"]},
    },
}
_TOOLS = (
    Message("user", "What colour is the sea?"),
    Message("assistant", "", tool_calls=(_CALL,)),
    Message("tool", "blue", name="look_up", tool_call_id="call00001"),
    Message("assistant", "Blue."),
)


class Habits(NamedTuple):
    """What a template does in an ordinary conversation."""

    end_text: str
    stop_ids: tuple[int, ...]
    notes: tuple[str, ...]
    header: str
    """What stands before an answer although the generation prompt does not write it; nearly always empty."""


def study(plain: Shapes, tools: Shapes, encoder: Encoder, *, pad: int | None, eos: int | None, adds_bos: bool) -> Habits:
    """Try a template on a chat and on a tool call."""
    chat, begun, call = _try(plain, _CHAT), _try(plain, _CHAT[:2]), _try(tools, _TOOLS, (_LOOK_UP,))
    turns = [turn for located in (chat, call) if isinstance(located, Located) for turn in located.turns.values()]
    markers = [turn.marker for turn in turns if turn.marker]
    ends = {encoder.id_of(max((token for token in encoder.controls if marker.endswith(token)), key=len)) for marker in markers} | {eos}
    stop_ids = tuple(sorted(id for id in ends if id is not None))
    header = _header(plain, chat) if isinstance(chat, Located) else ""
    notes = [str(chat).partition("\n")[0]] if isinstance(chat, HoneError) else _notes(chat, begun, header)
    if isinstance(call, Located) and any(not turn.stable for turn in call.turns.values()) and not notes:
        notes.append("T011: with tools, the text before an answer changes when the conversation goes on")
    if pad is not None and pad in stop_ids:
        notes.append("T002: padding is the token that ends an answer; it is learned where it ends one, since weights go by position")
    if adds_bos and isinstance(chat, Located) and not (plain.bos and chat.text.startswith(plain.bos)):
        notes.append("T006: the tokenizer begins plain text with a token that this template does not write; conversations go without it")
    return Habits(markers[0] if markers else "", stop_ids, tuple(notes), header)


def _try(shapes: Shapes, conversation: Conversation, tools: Tools = ()) -> Located | HoneError:
    found: Located | HoneError | None = None
    for text_arguments in (False, True):
        try:
            return shapes.locate(dicts(conversation, text_arguments=text_arguments), tools)
        except HoneError as error:
            found = found or error
    assert found is not None
    return found


def _header(shapes: Shapes, chat: Located) -> str:
    first = dicts(_CHAT[:1])
    prompt = shapes.renderer.attempt(first, prompt=True)
    ignored = prompt is not None and prompt == shapes.renderer.attempt(first)
    start = chat.turns[1].start
    return chat.text[len(prompt) : start] if prompt is not None and ignored and chat.text.startswith(prompt) and start > len(prompt) else ""


def _first_answer(found: Located | HoneError) -> str:
    return found.text[found.turns[1].start : found.turns[1].end] if isinstance(found, Located) else ""


def _notes(chat: Located, begun: Located | HoneError, header: str) -> list[str]:
    earlier, last = chat.turns[1], chat.turns[3]
    notes = [str(turn.fault).partition("\n")[0] for turn in (last,) if turn.fault]
    if header:
        return [*notes, f"T011: the template has no generation prompt; {header!r} is put before an answer here, but not by other programs"]
    if not last.prompted:
        notes.append(
            "T011: an answer does not begin where its generation prompt ends, so the model is asked a little differently than trained"
        )
    elif not earlier.prompted or not last.stable or _first_answer(begun) != _first_answer(chat):
        notes.append("T011: answers before the last one are written differently than when they were the last")
    return notes
