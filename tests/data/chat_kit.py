"""What the tests of chat templates share: the real templates, their golden renderings, and a tokenizer that knows their control tokens."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence as Seq
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hone.core.types import Conversation, Message, Sequence
from hone.data.chat import ChatTemplate

NOW = datetime.fromisoformat("2026-01-02 03:04:05")
_TAG = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|<[A-Z_]{3,20}>|</?(?:think|tool_call|tool_response|start_of_turn|end_of_turn|sep|sop)>"
    r"|\[/?[A-Z_]{3,20}\]|\[gMASK\]"
)
_ORDINARY = re.compile(r"</?(think|tool_call|tool_response)>")
"""Tokens of their own, but not control tokens: data may well contain them."""


class Kit(NamedTuple):
    """The folder of templates, `goldens.json`, one tokenizer for all, and the templates made so far."""

    folder: Path
    goldens: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    made: dict[str, ChatTemplate]

    def __repr__(self) -> str:
        return "kit"

    def template(self, name: str, variant: str = "auto", **variables: Any) -> ChatTemplate:
        key = f"{name} {variant} {variables}"
        if key not in self.made:
            self.tokenizer.chat_template = (self.folder / f"{name}.jinja").read_text("utf-8")
            self.made[key] = ChatTemplate.of(self.tokenizer, variant, now=NOW, variables=variables)
        return self.made[key]

    def context(self, name: str) -> tuple[Conversation, tuple[dict[str, Any], ...]]:
        case = self.goldens["contexts"][name]
        return messages(case["messages"]), tuple(case["tools"] or ())


def kit(shared: Path) -> Kit:
    folder = shared / "data" / "chat_templates"
    goldens = json.loads((folder / "goldens.json").read_text("utf-8"))
    texts = [case.get("text", "") for cases in goldens["goldens"].values() for case in cases.values()]
    tags = sorted({tag for text in texts for tag in _TAG.findall(text)} - set(goldens["tokens"].values()))
    tokenizer = AutoTokenizer.from_pretrained(shared / "data" / "tokenizers" / "qwen2_tokenizer")
    tokenizer.add_tokens([tag for tag in tags if not _ORDINARY.fullmatch(tag)], special_tokens=True)
    tokenizer.add_tokens([tag for tag in tags if _ORDINARY.fullmatch(tag)])
    tokenizer.add_special_tokens(goldens["tokens"])
    return Kit(folder, goldens, tokenizer, {})


def messages(rows: Seq[dict[str, Any]]) -> Conversation:
    return tuple(Message(**{**row, "tool_calls": tuple(row.get("tool_calls", ()))}) for row in rows)


def chat(*contents: str) -> Conversation:
    """User and assistant in turn."""
    return tuple(Message(("user", "assistant")[i % 2], content) for i, content in enumerate(contents))


def learned(tokenizer: PreTrainedTokenizerBase, sequence: Sequence) -> list[str]:
    """The runs of learned tokens as text."""
    runs: list[list[int]] = [[]]
    for token, weight in zip(sequence.tokens, sequence.weights, strict=True):
        if weight:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


def nfc(text: str) -> str:
    """Qwen's tokenizer composes characters, so texts are compared composed."""
    return unicodedata.normalize("NFC", text)
