"""Tool calls are found as the template writes them, and only those of tools that were offered."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from hone.data.chat import ChatTemplate
from hone.serve.tools import CallFormat, call_format

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("weather", "time")]
BEGIN = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS = {
    "hermes": (
        "{% for call in message.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}",
        ("<tool_call>", "name", "arguments"),
    ),
    "mistral": (
        "{% if message.tool_calls %}[TOOL_CALLS][{% for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}]{% endif %}",
        ("[TOOL_CALLS]", "name", "arguments"),
    ),
    "llama": (
        "{% for call in message.tool_calls or [] %}"
        '{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}{% endfor %}',
        ("", "name", "parameters"),
    ),
}


def template(tokenizer: Any, source: str) -> ChatTemplate:
    made = copy.deepcopy(tokenizer)
    made.chat_template = source
    return ChatTemplate.of(made)


@pytest.mark.parametrize("kind", CALLS)
def test_the_format_is_read_off_the_template(kind: str, tiny_tokenizer: Any) -> None:
    source, expected = CALLS[kind]
    assert call_format(template(tiny_tokenizer, BEGIN + source + END)) == CallFormat(*expected)


def test_templates_without_tools_or_without_json_have_none(tiny_tokenizer: Any) -> None:
    assert call_format(ChatTemplate.of(tiny_tokenizer)) is None
    strange = "{% for call in message.tool_calls or [] %}{{ call.function.name }}!{% endfor %}"
    assert call_format(template(tiny_tokenizer, BEGIN + strange + END)) is None


def test_calls_are_told_from_text() -> None:
    hermes = CallFormat("<tool_call>", "name", "arguments")
    one, two = '{"name": "weather", "arguments": {"city": "Rome \\"}{"}}', '{"name": "time", "arguments": {}}'
    text, calls = hermes.parse(f"I look.\n<tool_call>\n{one}\n</tool_call>\n<tool_call>\n{two}\n</tool_call>", TOOLS)
    assert text == "I look."
    assert [call["function"]["name"] for call in calls] == ["weather", "time"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"city": 'Rome "}{'}
    assert len({call["id"] for call in calls}) == 2


@pytest.mark.parametrize(
    "text", ["<tool_call>{", '<tool_call>{"name": "rm", "arguments": {}}', '{"name": "weather"}', "", "<tool_call>" + "[{" * 5000]
)
def test_what_is_no_call_stays_text(text: str) -> None:
    assert CallFormat("<tool_call>", "name", "arguments").parse(text, TOOLS) == (text, [])


def test_without_a_mark_only_an_answer_that_is_a_call_counts() -> None:
    llama = CallFormat("", "name", "parameters")
    call = '{"name": "weather", "parameters": {"city": "Rome"}}'
    assert len(llama.parse(f" {call}", TOOLS)[1]) == 1
    assert llama.parse(f"Like so: {call}", TOOLS)[1] == []
