"""Prompts as a copy itself would write and encode them: its own template, its own tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from hone.core.errors import HoneError
from hone.data.rendering import Renderer
from hone.export.proof.golden import Golden

Render = Callable[[list[dict[str, Any]], list[dict[str, Any]]], str | None]
Encode = Callable[[str, bool], list[int]]


def render_with(source: str | None, variables: Mapping[str, Any], golden: Golden) -> Render:
    """A template in our guarded sandbox, on the day of the certificate. None where it refuses, or there is none. Raises T003."""
    if source is None:
        return lambda messages, tools: None
    renderer = Renderer(source, name="the copy's", variables=variables, now=datetime.fromisoformat(golden.about["now"]))

    def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str | None:
        try:
            return renderer.render(messages, tools, prompt=True).text
        except HoneError:
            return None

    return render


def encode_with(tokenizer: Any) -> Encode:
    """As transformers and vLLM do: a conversation's template writes its own special tokens, plain text gets the tokenizer's."""

    def encode(text: str, chat: bool) -> list[int]:
        return list(tokenizer(text, add_special_tokens=not chat)["input_ids"])

    return encode
