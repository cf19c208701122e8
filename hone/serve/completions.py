"""POST /v1/chat/completions and /v1/completions: a request to prompts, and answers back, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from hone.core.errors import HoneError
from hone.core.types import Origin
from hone.data import turns
from hone.models.heads import text_config
from hone.rollout.warp import Sampling
from hone.serve import answers
from hone.serve.answers import Choice, arriving
from hone.serve.engine import Engine, Writing
from hone.serve.errors import Refusal
from hone.serve.limits import DEFAULT_TOKENS, Limits
from hone.serve.metrics import Metrics
from hone.serve.tools import CallFormat, call_format
from hone.serve.voices import Voice
from hone.serve.wire import ChatRequest, TextRequest, _Sampled

HERE = Origin("request", 0)


class Completions:
    """The two ways to ask for text."""

    def __init__(self, engine: Engine, limits: Limits, metrics: Metrics) -> None:
        self.engine, self.limits, self.metrics = engine, limits, metrics
        self._desk = ThreadPoolExecutor(1, thread_name_prefix="hone-desk")
        self._formats: dict[str, CallFormat | None] = {}

    def voice(self, name: str) -> Voice:
        """The model of this name. Raises Refusal 404."""
        if name not in self.engine.voices:
            known = ", ".join(self.engine.voices)
            raise Refusal(404, f"there is no model '{name}' here; there is: {known}", param="model", code="model_not_found")
        return self.engine.voices[name]

    async def at_desk(self, work: Callable[[], Any]) -> Any:
        """Templates and tokenizers, off the event loop and one request at a time. Raises Refusal for faults of the request."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._desk, work)
        except HoneError as error:
            raise Refusal.of(error) from error

    async def chat(self, body: ChatRequest) -> Any:
        voice, template = self.voice(body.model), self.voice(body.model).opened.template
        listed = body.tools if body.tool_choice != "none" else None

        def prepare() -> tuple[list[int], Any, CallFormat | None]:
            tools = turns.tools(listed, HERE)
            return template.prompt_ids(turns.messages(body.messages, HERE), tools), tools, self._calls(voice) if tools else None

        prompt, tools, calls = await self.at_desk(prepare)
        longest = body.max_completion_tokens or body.max_tokens
        writing = self._writing(voice, [prompt], body, longest, body.alternatives)
        choice = partial(Choice, tokenizer=voice.opened.tokenizer, calls=calls, tools=tools, one_call=body.parallel_tool_calls is False)
        choices = [choice(i, request) for i, request in enumerate(writing.requests)]
        if body.stream:
            return await self._stream(_chat_chunks(body, choices, self._arriving(writing), voice.name), body, choices, 1)
        await self._finish(writing)
        return answers.head("chat.completion", voice.name) | {
            "choices": [_chat_choice(each, body) for each in choices],
            "usage": answers.usage(writing.requests, 1),
        }

    def _calls(self, voice: Voice) -> CallFormat:
        """How this model writes calls, found out once."""
        if voice.name not in self._formats:
            self._formats[voice.name] = call_format(voice.opened.template)
        found = self._formats[voice.name]
        if found is None:
            what = f"the chat template of '{voice.name}' shows the model no tools, or writes calls in a way that cannot be read back"
            raise Refusal(400, what, param="tools", code="tools_not_supported")
        return found

    async def text(self, body: TextRequest) -> Any:
        voice = self.voice(body.model)
        prompts = await self.at_desk(lambda: [ids_of(voice, each, self.limits) for each in body.prompts])
        writing = self._writing(voice, prompts, body, body.max_tokens or 16, body.logprobs)
        choices = [Choice(i, request, voice.opened.tokenizer) for i, request in enumerate(writing.requests)]
        if body.stream:
            return await self._stream(_text_chunks(body, choices, self._arriving(writing), voice.name), body, choices, len(prompts))
        await self._finish(writing)
        whole = [_text_choice(each, body, each.text(), each.places(), each.reason()) for each in choices]
        return answers.head("text_completion", voice.name) | {"choices": whole, "usage": answers.usage(writing.requests, len(prompts))}

    def _writing(self, voice: Voice, prompts: list[list[int]], body: _Sampled, longest: int | None, alternatives: int | None) -> Writing:
        """The requests of a body, `n` for each prompt. Raises Refusal where a limit is passed."""
        n = body.n or 1
        if longest is not None and longest > self.limits.max_tokens:
            raise Refusal(
                400, f"at most {self.limits.max_tokens} new tokens can be asked for here", param="max_tokens", code="too_many_tokens"
            )
        if n > self.limits.choices or not 0 < len(prompts) <= self.limits.inputs:
            raise Refusal(400, f"at most {self.limits.choices} answers to each of at most {self.limits.inputs} prompts", param="n")
        how = Sampling(
            max_new_tokens=longest or min(DEFAULT_TOKENS, self.limits.max_tokens),
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            stop_strings=body.stops,
            seed=secrets.randbits(62) if body.seed is None else body.seed,
        )
        writing = Writing(voice)
        try:
            for i, prompt in enumerate(prompt for prompt in prompts for _ in range(n)):
                writing.requests.append(voice.request(i, prompt, how, writing.tell, alternatives=alternatives or 0))
        except HoneError as error:
            raise Refusal.of(error) from error
        return writing

    async def _arriving(self, writing: Writing) -> AsyncIterator[tuple[int, int, bool]]:
        """Tokens as they come; what was read and written is counted at the end."""
        async for index, token, last in arriving(self.engine, writing):
            if last:
                request = writing.requests[index]
                self.metrics.add("hone_answers_total")
                self.metrics.add("hone_prompt_tokens_total", len(request.prompt))
                self.metrics.add("hone_cached_tokens_total", request.recalled)
                self.metrics.add("hone_completion_tokens_total", len(request.tokens))
            yield index, token, last

    async def _finish(self, writing: Writing) -> None:
        async for _ in self._arriving(writing):
            pass

    async def _stream(self, chunks: AsyncIterator[dict[str, Any]], body: _Sampled, choices: list[Choice], prompts: int) -> Any:
        """Server-sent events. What goes wrong before the first chunk is an error of its own; later it is the last event."""
        from fastapi.responses import StreamingResponse

        first = await anext(chunks)

        async def events() -> AsyncIterator[str]:
            yield _event(first)
            try:
                async for chunk in chunks:
                    yield _event(chunk)
            except Refusal as refusal:
                yield _event(refusal.body)
                return
            if body.stream_options is not None and body.stream_options.include_usage:
                used = answers.usage([choice.request for choice in choices], prompts)
                yield _event({key: first[key] for key in ("id", "object", "created", "model")} | {"choices": [], "usage": used})
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def ids_of(voice: Voice, given: str | list[int], limits: Limits) -> list[int]:
    """A prompt as tokens. Raises Refusal for one that is empty, or that has ids which the model does not know."""
    ids: list[int] = given if isinstance(given, list) else voice.opened.tokenizer(given)["input_ids"]
    size = text_config(voice.opened.policy.model).vocab_size
    if not ids or max(ids) >= size:
        raise Refusal(400, f"a prompt needs at least one token, and ids below {size}", param="prompt", code="bad_tokens")
    return ids


def _chat_choice(choice: Choice, body: ChatRequest) -> dict[str, Any]:
    content, calls = choice.message()
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    logprobs = None if body.alternatives is None else choice.chat_logprobs(choice.places())
    return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": choice.reason(bool(calls))}


async def _chat_chunks(
    body: ChatRequest, choices: list[Choice], tokens: AsyncIterator[tuple[int, int, bool]], model: str
) -> AsyncIterator[dict[str, Any]]:
    shared, seen = answers.head("chat.completion.chunk", model), [0] * len(choices)

    def chunk(choice: Choice, delta: dict[str, Any], *, places: list[int] | None = None, reason: str | None = None) -> dict[str, Any]:
        logprobs = choice.chat_logprobs(places) if places and body.alternatives is not None else None
        return shared | {"choices": [{"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}]}

    async for index, token, last in tokens:
        choice, place = choices[index], seen[index]
        if not place:
            yield chunk(choice, {"role": "assistant", "content": "", "refusal": None})
        piece, seen[index] = choice.add(token, last), place + 1
        places = [place] if token not in choice.request.stops.ids else []
        if piece or (places and body.alternatives is not None):
            yield chunk(choice, {"content": piece}, places=places)
        if not last:
            continue
        content, calls = choice.message() if choice.calls is not None else (None, [])
        if content:
            yield chunk(choice, {"content": content})
        if calls:
            yield chunk(choice, {"tool_calls": [{"index": i, **call} for i, call in enumerate(calls)]})
        yield chunk(choice, {}, reason=choice.reason(bool(calls)))


def _text_choice(choice: Choice, body: TextRequest, text: str, places: list[int], reason: str | None) -> dict[str, Any]:
    logprobs = choice.text_logprobs(places) if body.logprobs is not None else None
    return {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": reason}


async def _text_chunks(
    body: TextRequest, choices: list[Choice], tokens: AsyncIterator[tuple[int, int, bool]], model: str
) -> AsyncIterator[dict[str, Any]]:
    shared, seen = answers.head("text_completion", model), [0] * len(choices)
    async for index, token, last in tokens:
        choice, place = choices[index], seen[index]
        piece, seen[index] = choice.add(token, last), place + 1
        places = [place] if token not in choice.request.stops.ids else []
        reason = choice.reason() if last else None
        yield shared | {"choices": [_text_choice(choice, body, piece, places, reason)]}
