"""Renderings of 25 real chat templates against those of transformers, the errors included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.data.rendering import Renderer
from tests.data.chat_kit import NOW, Kit, kit

CODES = {
    ("Kimi-K2-Instruct", "tools"): "T007",
    ("Kimi-K2-Thinking", "tools"): "T007",
    ("MiroThinker", "chat"): "T009",
    ("MiroThinker", "system"): "T009",
    ("MiroThinker", "tools"): "T009",
    ("fireworks-ai-llama-3-firefunction-v2", "chat"): "T009",
    ("fireworks-ai-llama-3-firefunction-v2", "system"): "T009",
    ("fireworks-ai-llama-3-firefunction-v2", "tools"): "T009",
    ("fireworks-ai-llama-3-firefunction-v2", "user_only"): "T009",
    ("google-gemma-2-2b-it", "system"): "T007",
    ("google-gemma-2-2b-it", "tools"): "T007",
}
"""What users are told where transformers raises an error."""


@pytest.fixture(scope="module")
def real(shared: Path) -> Kit:
    return kit(shared)


def test_a_renderer_writes_what_transformers_writes_and_fails_where_it_fails(real: Kit) -> None:
    wrong: list[Any] = []
    for name, cases in real.goldens["goldens"].items():
        renderer = Renderer((real.folder / name).read_text("utf-8"), name=name, variables=real.goldens["tokens"], now=NOW)
        for case, golden in cases.items():
            context, _, prompt = case.partition("|gen=")
            given = real.goldens["contexts"][context]
            try:
                made = {"text": renderer.render(given["messages"], given["tools"] or (), prompt=prompt == "True").text}
            except HoneError as error:
                made = {"error": f"{type(error.__cause__).__name__}: {error.__cause__}"}
            wrong += [(name, case, made, golden)] if made != golden else []
    assert len(real.goldens["goldens"]) == 25
    assert not wrong


def test_messages_give_the_same_text_and_errors_have_their_code(real: Kit) -> None:
    listed = [
        (file.removesuffix(".jinja"), case, golden) for file, cases in real.goldens["goldens"].items() for case, golden in cases.items()
    ]
    for name, case, golden in listed:
        context, _, prompt = case.partition("|gen=")
        conversation, tools = real.context(context)
        template = real.template(name)
        if "text" in golden:
            assert template.text(conversation, tools, add_generation_prompt=prompt == "True") == golden["text"], (name, case)
        elif name != "meetkai-functionary-medium-v3.2":
            with pytest.raises(HoneError) as caught:
                template.text(conversation, tools, add_generation_prompt=prompt == "True")
            assert caught.value.code == CODES[name, context], (name, case)


def test_a_template_that_wants_the_arguments_of_a_call_as_text_gets_text(real: Kit) -> None:
    template = real.template("meetkai-functionary-medium-v3.2")
    conversation, tools = real.context("tools")
    assert '>>>get_weather\n{"city": "Paris", "days": 2}<|eot_id|>' in template.text(conversation, tools)


def test_the_date_is_frozen_when_the_template_is_made(real: Kit) -> None:
    template = real.template("ibm-granite-granite-3.3-2B-Instruct")
    assert "Today's Date: January 02, 2026." in template.text(real.context("user_only")[0])
