"""Conversations that every copy of a model is asked: each is there to catch one way in which copies go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hone.core.types import Conversation, Message

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
TEXT = "The ship left the harbour at half past seven, and at noon"
_STORY = "Once there was a small town by the sea. Each morning the baker lit the oven, and the boats went out at six. "


class Probe(NamedTuple):
    """One question. Without a conversation it is plain text to be continued."""

    name: str
    conversation: Conversation = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    text: str = ""


def probes(*, specials: Sequence[str], words: int = 150) -> list[Probe]:
    """The probes for a tokenizer with these special tokens; `words` bounds the long one, for models with a short context."""
    talk = (
        Message("user", "My name is Ada. What is 12 + 30?"),
        Message("assistant", "12 + 30 is 42."),
        Message("user", "And what is my name?"),
    )
    long = " ".join((_STORY * (words // 20 + 1)).split()[:words])
    return [
        Probe("plain", (Message("user", "Hello! What can you do?"),)),
        Probe("system", (Message("system", "You are brief."), Message("user", "Name three colours."))),
        Probe("turns", talk),
        Probe("tools", (Message("user", "Is it raining in Lyon?"),), (WEATHER,)),
        Probe("long", (Message("user", f"{long} What does the baker do?"),)),
        Probe("chinese", (Message("user", "你好，请用一句话介绍一下你自己。  谢谢！"),)),
        Probe("special", (Message("user", f"What does {' '.join(specials[:3]) or '<s>'} mean?"),)),
        Probe("odd", (Message("user", "  It's 3.14159 & 2024-11-05\n\n\tx = [1,2]; // naïve café 🙂 "),)),
        Probe("text", text=TEXT),
    ]
