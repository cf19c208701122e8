"""What a user gives to a run, healthy: rows, a tokenizer and a model's small files; and what hone says of it before anything is trained."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.core.types import Shape
from hone.data.chat import ChatTemplate
from hone.data.prepare import Prepared, prepare
from hone.data.settings import DataSettings
from hone.data.shapes import check_shape
from hone.plan.faults import check_model
from hone.plan.rules import Case, check
from hone.recipe.forecast import sections, tokens_of

Row = Mapping[str, Any]
Messages = list[dict[str, Any]]
ROWS, ASIDE, WIDE = 100, 10, 8
CALL = {"id": "call00001", "type": "function", "function": {"name": "clock", "arguments": {"place": "harbour"}}}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}},
}
CALLING = (
    "{% if tools %}{{ '<|im_start|>system\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}{{ '<call>' + (call.function | tojson) + '</call>' }}{% endfor %}"
    "{{ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with tools, after transformers' convention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Everything that is there before a run. A flaw replaces one part."""

    rows: Sequence[Row]
    aside: Sequence[Row]
    tokenizer: PreTrainedTokenizerFast
    shape: Shape = "single"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of `data`, beside train and held_out."""
    config: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    """The model's config.json and generation_config.json."""
    adds_bos: bool = False
    """Whether tokenizer_config.json says so."""
    dead: tuple[int, ...] = ()
    """Tokens whose embedding is zero."""

    def templated(self, source: str) -> Given:
        """With another chat template."""
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.chat_template = source
        return replace(self, tokenizer=tokenizer)

    def said(self, change: Callable[[int, Messages], Messages]) -> Given:
        """With other messages in each row that is trained, by the row's number."""
        return replace(self, rows=[{**row, "messages": change(i, row["messages"])} for i, row in enumerate(self.rows)])


def talk(*said: str, system: str = "") -> Row:
    """What user and assistant say in turn."""
    head = [{"role": "system", "content": system}] if system else []
    return {"messages": head + [{"role": ("user", "assistant")[i % 2], "content": one} for i, one in enumerate(said)]}


def asked(i: int) -> str:
    return f"When does ship number {i} leave the harbour of the town?"


def told(i: int) -> str:
    return f"It leaves at {i}, said the baker."


def _called(i: int) -> Row:
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    result = {"role": "tool", "content": str(i), "tool_call_id": "call00001", "name": "clock"}
    messages = [{"role": "user", "content": asked(i)}, call, result, {"role": "assistant", "content": told(i)}]
    return {"messages": messages, "tools": [CLOCK]}


KINDS: dict[str, tuple[Shape, Callable[[int], Row]]] = {
    "talks": ("single", lambda i: talk(asked(i), told(i))),
    "turns": ("single", lambda i: talk(asked(i), told(i), "Who said so?", f"The baker, {i} times.")),
    "guided": ("single", lambda i: talk(asked(i), told(i), system="You keep the book of the harbour.")),
    "calls": ("single", _called),
    "pairs": ("pair", lambda i: {"prompt": asked(i), "chosen": told(i), "rejected": f"Nobody knows of ship {i}."}),
    "labels": ("label", lambda i: {"prompt": asked(i), "completion": told(i), "label": i % 2 == 0}),
    "steps": ("steps", lambda i: {"prompt": asked(i), "completions": [f"It is {i}.", "So it leaves."], "labels": [True, i % 2 == 0]}),
}
"""Healthy kinds of data -> the shape that an objective wants of it, and its rows by number."""


def given(kind: str, tokenizer: PreTrainedTokenizerFast) -> Given:
    """The healthy case of a kind."""
    shape, row = KINDS[kind]
    made = [row(i) for i in range(ROWS + ASIDE)]
    found = Given(
        rows=made[:ROWS], aside=made[ROWS:], tokenizer=tokenizer, shape=shape,
        config={"vocab_size": 384, "eos_token_id": 1}, generation={"eos_token_id": [1]},
    )  # fmt: skip
    return found.templated(CALLING) if kind == "calls" else found


def said_of(one: Given, place: Path) -> set[str]:
    """The codes of all that hone says before it trains: of the model's files, of the template, of the rows, and of the run by its rules."""
    found = {fault.code for fault in check_model(_model(one, place / "model"))}
    template = ChatTemplate.of(one.tokenizer)
    found |= {note.partition(":")[0] for note in template.notes}
    sources = {"train": _file(place / "train.jsonl", one.rows), "held_out": _file(place / "aside.jsonl", one.aside)}
    data = {**sources, **one.settings}
    settings = parse(DataSettings, data, section="data")
    try:
        check_shape(settings, one.shape, objective="this run")
        made = prepare(settings, one.tokenizer, template, shape=one.shape)
    except HoneError as error:
        return found | {error.code}
    return found | {notice.code for notice in made.notices} | _by_rules(made, data)


def _by_rules(made: Prepared, data: Mapping[str, Any]) -> set[str]:
    """What `hone lint` says of the rows; notes are no faults."""
    counted = tokens_of(made, batch=8)
    settings = sections({"model": {"name": "small"}, "data": data})[0]
    case = Case(settings, rows=counted.rows, held_out=counted.held_out, truncated=counted.truncated, duplicates=counted.duplicates)
    return {finding.code for finding in check(case) if finding.level != "note"}


def _file(path: Path, rows: Sequence[Row]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows), "utf-8")
    return str(path)


def _model(one: Given, folder: Path) -> Path:
    """The small files of a model, and a narrow embedding."""
    one.tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"add_bos_token": one.adds_bos}))
    (folder / "config.json").write_text(json.dumps(one.config))
    (folder / "generation_config.json").write_text(json.dumps(one.generation))
    weights = torch.ones(int(one.config["vocab_size"]), WIDE)
    weights[list(one.dead)] = 0.0
    save_file({"model.embed_tokens.weight": weights}, folder / "model.safetensors")
    return folder
