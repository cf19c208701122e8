"""The light tokenizer and the light template environment give what transformers gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from transformers import AutoTokenizer

from hone.data.chat import ChatTemplate
from hone.data.guard import GuardedEnvironment
from hone.data.jinja import environment
from hone.data.light import LightTokenizer, light_tokenizer
from hone.data.prepare import prepare
from hone.data.settings import DataSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEXTS = ("A ship, two ships\nand 12.5 € in 東京.", "<|im_start|>user\nHello<|im_end|>", "  spaces  \tand\r\n\u00e9\u0301 \U0001f600")


def light(folder: Path) -> LightTokenizer:
    made = light_tokenizer(folder)
    assert isinstance(made, LightTokenizer), made
    return made


def assert_same(folder: Path) -> None:
    ours, theirs = light(folder), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        for special in (True, False):
            assert ours(text, add_special_tokens=special)["input_ids"] == theirs(text, add_special_tokens=special)["input_ids"]
    for name in ("bos_token", "eos_token", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "chat_template"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert {id: str(token) for id, token in ours.added_tokens_decoder.items()} == {
        id: str(token) for id, token in theirs.added_tokens_decoder.items()
    }


def test_the_seedling() -> None:
    import hone.demo

    assert_same(Path(hone.demo.__path__[0]) / "seedling")


def test_a_real_tokenizer(shared: Path) -> None:
    assert_same(shared / "data" / "tokenizers" / "minimind")


def test_data_is_prepared_alike(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    rows = [
        {"messages": [{"role": "user", "content": f"ship {i}"}, {"role": "assistant", "content": "harbour " * i}]} for i in range(1, 30)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    found = []
    for tokenizer in (light(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        template = ChatTemplate.of(tokenizer)  # type: ignore[arg-type]
        made = prepare(DataSettings(train=str(file), max_length=64), tokenizer, template)  # type: ignore[arg-type]
        found.append((made.fingerprint, [len(group[0].tokens) for group in made.groups]))
    assert found[0] == found[1]


def test_what_is_more_than_its_file_is_left_to_transformers(tmp_path: Path) -> None:
    assert isinstance(light_tokenizer(tmp_path), str)
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    assert "LlamaTokenizer" in str(light_tokenizer(tmp_path))


def test_templates_see_the_environment_of_transformers() -> None:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    theirs = GuardedEnvironment.like(_compile_jinja_template("").environment)
    ours = GuardedEnvironment.like(environment())
    assert ours.filters.keys() == theirs.filters.keys()
    assert ours.globals.keys() | {"strftime_now"} == theirs.globals.keys() | {"strftime_now"}
    pieces = (
        "{{ x | tojson }}{{ x | tojson(indent=2) }}",
        "{% set n = namespace(a=1) %}{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{% set n.a = n.a + i %}{% endfor %}{{ n.a }}",
        "{{ dict(a=1, b=x).b[1] }}{{ dict.fromkeys('ab') }}",
        "{%- if true %}\n  a\n{% endif %}\n b",
    )
    for text in pieces:
        made = [one.from_string(text).render(x=["<b>", "ä"]) for one in (ours, theirs)]
        assert made[0] == made[1]
    for text in ("{{ namespace(_a=1) }}", "{{ raise_exception('no') }}"):
        kinds = []
        for one in (ours, theirs):
            with pytest.raises(Exception) as caught:  # noqa: PT011
                one.from_string(text).render()
            kinds.append(type(caught.value))
        assert kinds[0] == kinds[1]
