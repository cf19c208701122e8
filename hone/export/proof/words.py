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


def render_with(source: str | Mapping[str, str] | None, variables: Mapping[str, Any], golden: Golden) -> Render:
    """A template (or one that is called "default" and one for tools, "tool_use") in our guarded sandbox, on the day of the certificate.

    It says None where the template refuses, or there is none. Raises T003.
    """
    sources = {"default": source} if isinstance(source, str) else dict(source or {})
    if "default" not in sources:
        return lambda messages, tools: None
    now = datetime.fromisoformat(golden.about["now"])
    made = {name: Renderer(text, name="the copy's", variables=variables, now=now) for name, text in sources.items()}

    def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> str | None:
        try:
            renderer = made.get("tool_use", made["default"]) if tools else made["default"]
            return renderer.render(messages, tools, prompt=True).text
        except HoneError:
            return None

    return render


def encode_with(tokenizer: Any) -> Encode:
    """As transformers and vLLM do: a conversation's template writes its own special tokens, plain text gets the tokenizer's."""

    def encode(text: str, chat: bool) -> list[int]:
        return list(tokenizer(text, add_special_tokens=not chat)["input_ids"])

    return encode
