"""Stand-ins for what people say: words that no template reacts to, so that a rendering shows where everything that was said ends up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hone.data.rendering import Chat

STAND_IN = re.compile(r"Hn\d{5}Q")
"""ASCII letters and digits: trimming, JSON and HTML escaping leave them alone."""
FOLLOW_UP = "Hn99999Q"
CALL = "tool call"
"""The kind of stand-ins in tool calls; the others are named as the fields of a message."""
_NEUTRAL = re.compile(r"Zn(\d{5})Q")


class Mould:
    """A conversation with stand-ins, and what each of them stands for.

    White space at both ends stays, as templates trim it; text that the template may look for (`</think>`) stays too, so that it takes the
    same branches. Equal messages of a user get equal stand-ins, because some templates compare messages; answers never share one.
    Without `calls` tool calls stay as they are.
    """

    def __init__(self, chat: Chat, literals: re.Pattern[str], *, calls: bool = True) -> None:
        self.said: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self.words: list[tuple[str, ...]] = []
        self._literals, self._shared = literals, dict[tuple[str, str, str], str]()
        self.chat = [self._message(message, calls) for message in chat]

    def _message(self, message: Mapping[str, Any], calls: bool) -> dict[str, Any]:
        made = dict(message)
        texts = {kind: message[kind] for kind in ("reasoning_content", "content") if isinstance(message.get(kind), str)}
        made |= {kind: self._text(text, message["role"], kind) for kind, text in texts.items()}
        if "thinking" in made and "reasoning_content" in made:
            made["thinking"] = made["reasoning_content"]
        first = len(self.said)
        if calls and "tool_calls" in message:
            made["tool_calls"] = [self._call(call) for call in message["tool_calls"]]
        written = [word for kind in texts for word in STAND_IN.findall(made[kind])]
        self.words.append((*(word for word in written if word in self.said), *list(self.said)[first:]))
        return made

    def _text(self, text: str, role: str, kind: str) -> str:
        key = (role, kind, text)
        if role != "assistant" and key in self._shared:
            return self._shared[key]
        made = self._shared[key] = self._pieces(text, kind)
        return made

    def _pieces(self, text: str, kind: str) -> str:
        return "".join(piece if odd % 2 else self._piece(piece, kind) for odd, piece in enumerate(self._literals.split(text)))

    def _piece(self, piece: str, kind: str) -> str:
        core = piece.strip()
        if not core:
            return piece
        before, _, after = piece.partition(core)
        return before + self._word(core, kind) + after

    def _word(self, text: str, kind: str) -> str:
        word = f"Hn{len(self.said):05d}Q"
        self.said[word], self.kinds[word] = text, kind
        return word

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        if isinstance(call.get("function"), Mapping):
            return dict(call) | {"function": self._call(call["function"])}
        return dict(call) | {key: self._value(call[key]) for key in ("name", "arguments") if key in call}

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._pieces(value, CALL)
        if isinstance(value, Mapping):
            return {key: self._value(item) for key, item in value.items()}
        return [self._value(item) for item in value] if isinstance(value, list) else value


def either(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern, with one group, of any of the texts, the longest first; of nothing if there are none."""
    return re.compile("(" + ("|".join(map(re.escape, sorted(set(texts) - {""}, key=lambda text: (-len(text), text)))) or "(?!)") + ")")


class Neutral:
    """A conversation in which the text of control tokens is hidden behind stand-ins, and the way back.

    `keep` are the control tokens that the template itself looks for in an answer (such as `</think>`): there they are structure.
    """

    def __init__(self, chat: Chat, tools: Any, controls: re.Pattern[str], keep: Iterable[str]) -> None:
        self._controls, self._texts = controls, list[str]()
        self.tools = self._hide(tools, frozenset())
        self.chat: Chat = [self._hide(message, frozenset(keep) if message["role"] == "assistant" else frozenset()) for message in chat]

    def __bool__(self) -> bool:
        """Whether anything was hidden."""
        return bool(self._texts)

    def _hide(self, value: Any, keep: frozenset[str]) -> Any:
        if isinstance(value, str):
            return self._controls.sub(lambda found: found[0] if found[0] in keep else self._word(found[0]), value)
        if isinstance(value, Mapping):
            return {key: item if key == "role" else self._hide(item, keep) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._hide(item, keep) for item in value]
        return value

    def _word(self, text: str) -> str:
        if text not in self._texts:
            self._texts.append(text)
        return f"Zn{self._texts.index(text):05d}Q"

    def restore(self, text: str) -> tuple[str, list[tuple[int, int]], list[tuple[int, int]]]:
        """The text with everything back in its place, where that is, and by how much positions shift from where on."""
        parts: list[str] = []
        spans: list[tuple[int, int]] = []
        shifts = [(0, 0)]
        done, length = 0, 0
        for found in _NEUTRAL.finditer(text):
            if int(found[1]) >= len(self._texts):
                continue
            hidden = self._texts[int(found[1])]
            parts += [text[done : found.start()], hidden]
            length += found.start() - done
            spans.append((length, length + len(hidden)))
            length, done = length + len(hidden), found.end()
            shifts.append((found.end(), length - done))
        return "".join([*parts, text[done:]]), spans, shifts
