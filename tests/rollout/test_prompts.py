"""Prompts from rows of many shapes; what else a row holds is for the rewards."""

from __future__ import annotations

from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.core.types import Message, Origin
from hone.data.chat import ChatTemplate
from hone.data.rows import Row
from hone.rollout.prompts import as_prompt, read_prompts

USER = Message("user", "How much?")
ASKED = [{"role": "user", "content": "How much?"}]


@pytest.fixture
def template(tiny_tokenizer: Any) -> ChatTemplate:
    return ChatTemplate.of(tiny_tokenizer)


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ({"prompt": "How much?", "answer": "7"}, "7"),
        ({"prompt": ASKED, "answer": 7}, 7),
        ({"question": "How much?", "solution": "#### 7"}, "#### 7"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "7"}]}, "7"),
        ({"instruction": "How much?", "input": "", "output": "7"}, "7"),
        ({"conversations": [{"from": "human", "value": "How much?"}, {"from": "gpt", "value": "7"}]}, "7"),
        ({"prompt": "How much?", "tests": ["assert True"]}, None),
    ],
)
def test_many_shapes_are_one_prompt(template: ChatTemplate, columns: dict[str, Any], answer: Any) -> None:
    made = as_prompt(Row(Origin("f", 3), columns), template)
    assert made.conversation == (USER,) and made.ids == template.prompt_ids((USER,))
    assert made.row.get("answer") == answer and made.origin == Origin("f", 3)


def test_a_system_prompt_and_an_input(template: ChatTemplate) -> None:
    made = as_prompt(Row(Origin("f", 1), {"instruction": "Add", "input": "3 and 4"}), template, system="Be brief.")
    assert made.conversation == (Message("system", "Be brief."), Message("user", "Add\n\n3 and 4"))


@pytest.mark.parametrize(
    ("columns", "code"),
    [({"tests": []}, "R010"), ({"messages": [{"role": "assistant", "content": "7"}]}, "R010"), ({"prompt": "word " * 100}, "R011")],
)
def test_rows_that_cannot_be_asked(template: ChatTemplate, columns: dict[str, Any], code: str) -> None:
    with pytest.raises(HoneError) as caught:
        as_prompt(Row(Origin("f", 9), columns), template, room=50)
    assert caught.value.code == code and "f:9" in str(caught.value)


def test_a_file(template: ChatTemplate, tmp_path: Any) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "How much?", "answer": "7"}\n{"prompt": "And now?", "answer": "8"}\n')
    assert [made.row["answer"] for made in read_prompts(str(file), template)] == ["7", "8"]
