"""Answers as clients get them: whole or in pieces, with probabilities, tool calls and the reason they ended."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hone.core.errors import HoneError
from hone.rollout.answer import Detokenizer, Request, decode
from hone.serve.engine import Engine, Writing
from hone.serve.errors import Refusal
from hone.serve.tools import CallFormat

LOWEST = -9999.0
"""JSON has no minus infinity."""


async def arriving(engine: Engine, writing: Writing) -> AsyncIterator[tuple[int, int, bool]]:
    """(which answer, token, whether it was the last) as they come. Raises Refusal for what went wrong on the way."""
    seen = [0] * len(writing.requests)
    left = len(seen)
    with engine.writing(writing):
        while left:
            event = await writing.events.get()
            if isinstance(event, Exception):
                raise _refusal(event) from event
            index, token = event
            request = writing.requests[index]
            seen[index] += 1
            last = request.done and seen[index] == len(request.tokens)
            left -= last
            yield index, token, last


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    return Refusal.of(error) if isinstance(error, HoneError) else Refusal(500, "the model failed; the server's log says how")


@dataclass
class Choice:
    """One answer on its way to the client."""

    index: int
    request: Request
    tokenizer: Any
    calls: CallFormat | None = None
    """How calls are written, where tools may be called; the text is then kept until it is whole."""
    tools: Sequence[Mapping[str, Any]] = ()
    one_call: bool = False
    _stream: Detokenizer = field(init=False)

    def __post_init__(self) -> None:
        self._stream = Detokenizer(self.tokenizer, self.request.how.stop_strings)

    def add(self, token: int, last: bool) -> str:
        """The text that this token brings to light."""
        piece = "" if token in self.request.stops.ids else self._stream.add(token)
        piece += self._stream.rest() if last else ""
        return "" if self.calls is not None else piece

    def text(self) -> str:
        return self.request.stops.text(self.request.tokens)

    def message(self) -> tuple[str | None, list[dict[str, Any]]]:
        """What is said, and the tools that are called."""
        text = self.text()
        if self.calls is None:
            return text, []
        content, calls = self.calls.parse(text, self.tools)
        if not calls:  # the mark may be a control token, which plain text does not show
            own = [token for token in self.request.tokens if token not in self.request.stops.ids]
            calls = self.calls.parse(self.tokenizer.decode(own, skip_special_tokens=False), self.tools)[1]
            content = "" if calls else content
        calls = calls[:1] if self.one_call else calls
        return (content or None if calls else content), calls

    def reason(self, calls: bool = False) -> str:
        """OpenAI's word for why it ended."""
        return ("tool_calls" if calls else "stop") if self.request.stopped else "length"

    def places(self, start: int = 0) -> list[int]:
        """Positions of tokens from `start` on that are part of the text."""
        return [i for i in range(start, len(self.request.tokens)) if self.request.tokens[i] not in self.request.stops.ids]

    def shown(self, token: int) -> str:
        return decode(self.tokenizer, [token]) or str(self.tokenizer.convert_ids_to_tokens(token))

    def likeliest(self, place: int) -> list[tuple[int, float]]:
        """The likeliest tokens at a place."""
        return self.request.likeliest[place] if self.request.likeliest else []

    def chat_logprobs(self, places: Sequence[int]) -> dict[str, Any]:
        """Probabilities in the shape of chat completions."""

        def entry(token: int, logp: float) -> dict[str, Any]:
            text = self.shown(token)
            return {"token": text, "logprob": max(logp, LOWEST), "bytes": list(text.encode())}

        content = [
            entry(self.request.tokens[i], self.request.logps[i]) | {"top_logprobs": [entry(*pair) for pair in self.likeliest(i)]}
            for i in places
        ]
        return {"content": content, "refusal": None}

    def text_logprobs(self, places: Sequence[int]) -> dict[str, Any]:
        """Probabilities in the shape of the older completions."""
        shown = [self.shown(self.request.tokens[i]) for i in places]
        before = sum(len(self.shown(self.request.tokens[i])) for i in range(places[0] if places else 0))
        return {
            "tokens": shown,
            "token_logprobs": [max(self.request.logps[i], LOWEST) for i in places],
            "top_logprobs": [{self.shown(token): max(logp, LOWEST) for token, logp in self.likeliest(i)} for i in places],
            "text_offset": [before + sum(map(len, shown[:i])) for i in range(len(shown))],
        }


def head(kind: str, model: str) -> dict[str, Any]:
    """What every answer and chunk begins with."""
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": model}


def usage(requests: Sequence[Request], prompts: int) -> dict[str, Any]:
    """Tokens that were read and written; the `n` answers to a prompt read it once."""
    each = max(1, len(requests) // max(1, prompts))
    read = sum(len(request.prompt) for request in requests[::each])
    written = sum(len(request.tokens) for request in requests)
    cached = sum(request.recalled for request in requests[::each])
    found = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return found | {"prompt_tokens_details": {"cached_tokens": cached}}
