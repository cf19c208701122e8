"""Templates that would take the machine down, or get out of the sandbox, are stopped quickly and by name."""

from __future__ import annotations

import copy
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import process_time

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hone.core.errors import HoneError
from hone.core.types import Message
from hone.data.chat import ChatTemplate

BOMBS = {
    "repeated text": "{{ 'a' * 10**9 }}",
    "repeated from the right": "{{ 10**9 * 'a' }}",
    "a repeated list": "{{ [messages] * 10**8 }}",
    "repetition in a condition": "{% if ('a' * 10**9) %}{% endif %}",
    "repetition of repetition": "{% set a = 'a' * 9999 %}{% set b = a * 9999 %}{{ b * 9999 }}",
    "an endless power": "{{ 9**9**9**9 }}",
    "a product of powers": "{{ (10**14) * (10**14) }}",
    "doubling by +": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling by ~": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by join": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = [n.x, n.x] | join %}{% endfor %}",
    "doubling by replace": "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x | replace('a', 'aa') %}{% endfor %}",
    "doubling by a method": "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
    "doubling a list": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "doubling into JSON": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
    "lists of letters": "{% set a = 'a' * 19999999 %}{% set n = namespace(x=[]) %}{% for i in range(999) %}{% set n.x = [n.x, a | list] %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "nested loops that write": "{% for i in range(99999) %}{% for j in range(99999) %}a{% endfor %}{% endfor %}",
    "a set block": "{% set x %}{% for i in range(99999) %}{{ messages[0].content }}" + "a" * 9999 + "{% endfor %}{% endset %}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a macro that calls itself for ever": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a large range": "{{ range(10**8) | list }}",
    "centred text": "{{ 'a' | center(10**9) }}",
    "centred at compile time": "{{ 'a' | center(1000000000) }}",
    "justified text": "{{ 'a'.ljust(10**9) }}",
    "zeros": "{{ '1'.zfill(10**9) }}",
    "tabs": "{{ '\\t'.expandtabs(10**9) }}",
    "indented text": "{{ 'a' | indent(10**9, true) }}",
    "indented JSON": "{{ [1] | tojson(indent=10**9) }}",
    "a filled batch": "{{ [1] | batch(10**8, 1) | list }}",
    "many slices": "{{ [1] | slice(10**8) | list }}",
    "a wide field": "{{ '%1000000000d' % 1 }}",
    "a wide field from arguments": "{{ '%*d' % (10**9, 1) }}",
    "a wide field by filter": "{{ '%1000000000d' | format(1) }}",
    "a wide field by method": "{{ '{:1000000000}'.format(1) }}",
    "a nested wide field": "{{ '{:{}}'.format(1, 10**9) }}",
    "nonsense text": "{{ lipsum(10**6) }}",
    "a long template": "a" * 1_000_001,
}
ESCAPES = {
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['os'].system('true') }}",
    "globals of a cycler": "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "by a filter": "{{ (messages | attr('__class__')).__mro__ }}",
    "by a format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "changing the messages": "{{ messages.append(messages[0]) }}",
}


@pytest.fixture
def tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerBase:
    return copy.deepcopy(tiny_tokenizer)


@pytest.mark.parametrize("source", BOMBS.values(), ids=BOMBS.keys())
def test_t004_a_bomb_is_stopped_before_it_takes_time_or_memory(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    tokenizer.chat_template = source
    before, started = getrusage(RUSAGE_SELF).ru_maxrss, process_time()
    with pytest.raises(HoneError) as caught:
        ChatTemplate.of(tokenizer).text((Message("user", "Hi"),))
    assert caught.value.code == ("T009" if "lipsum" in source else "T004")
    assert process_time() - started < 20
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 500_000, "kilobytes"


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES.keys())
def test_the_sandbox_holds(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    tokenizer.chat_template = source
    with pytest.raises(HoneError) as caught:
        ChatTemplate.of(tokenizer).text((Message("user", "Hi"),))
    assert caught.value.code in ("T004", "T009")


def test_what_people_say_is_never_run(tokenizer: PreTrainedTokenizerBase) -> None:
    template = ChatTemplate.of(tokenizer)
    said = "{{ 7 * 7 }} {% for i in range(10**9) %} {{ 'a' * 10**9 }} {# #}"
    assert f"user\n{said}<|im_end|>" in template.text((Message("user", said),))


def test_a_template_cannot_change_the_conversation_of_its_caller(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{% set m = messages[0] %}{% set m.content = 'changed' %}{{ m.content }}"
    call = {"function": {"name": "find", "arguments": {"word": "sea"}}}
    conversation = (Message("assistant", "Hi", tool_calls=(call,)),)
    with pytest.raises(HoneError) as caught:
        ChatTemplate.of(tokenizer).text(conversation)
    assert caught.value.code == "T009"
    assert conversation[0].content == "Hi"


def test_long_conversations_are_no_bombs(shared: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    turns = tuple(Message(("user", "assistant")[i % 2], f"{i} " + "word " * 200) for i in range(300))
    for file in sorted((shared / "data" / "chat_templates").glob("*.jinja")):
        if not file.stem.startswith(("MiroThinker", "fireworks")):
            tokenizer.chat_template = file.read_text("utf-8")
            assert len(ChatTemplate.of(tokenizer, variables={"bos_token": ""}).text(turns)) > 300_000
