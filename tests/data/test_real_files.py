"""Real files, as they lie on the hub: recognised by their columns, every row accounted for, and dirt named by its place."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from hone.core.config import parse
from hone.data.chat import ChatTemplate
from hone.data.prepare import Prepared, prepare
from hone.data.settings import DataSettings
from hone.data.tokenise import Shape
from tests.data.kit import fault


class Real(NamedTuple):
    """A file, the format that must be recognised, and how its rows end. `head` reads only the first rows, where it is long."""

    name: str
    format: str
    rows: int
    dropped: int = 0
    shape: Shape = "single"
    head: int | None = None


FILES = (
    Real("financial_phrasebank/train.jsonl", "label", 2799),
    Real("bitext_customer_intents/dev/Bitext_Sample_Customer_Service_Validation_Dataset.csv", "label", 810),
    Real("codealpaca/code_alpaca_2k.json.gz", "alpaca", 200, head=200),
    Real("llamafactory_demos/alpaca_en_demo.json", "alpaca", 999),
    Real("llamafactory_demos/alpaca_zh_demo.json", "alpaca", 1000),
    Real("llamafactory_demos/identity.json", "alpaca", 91),
    Real("llamafactory_demos/c4_demo.jsonl", "text", 300),
    Real("llamafactory_demos/wiki_demo.txt", "text", 30),
    Real("llamafactory_demos/glaive_toolcall_en_demo.json", "sharegpt", 300),
    Real("llamafactory_demos/glaive_toolcall_zh_demo.json", "sharegpt", 300),
    Real("llamafactory_demos/kto_en_demo.json", "kto_messages", 300, shape="label"),
    Real("llamafactory_demos/dpo_en_demo.json", "preference", 60, shape="pair", head=60),
    Real("llamafactory_demos/dpo_zh_demo.json", "preference", 60, shape="pair", head=60),
    Real("medicalgpt_zh/sample.jsonl", "question_answer", 32),
    Real("medicalgpt_zh/medical_corpus.txt", "text", 4),
    Real("medicalgpt_zh/medical_sft_1K_format.jsonl.gz", "sharegpt", 200, head=200),
    Real("medicalgpt_zh/sharegpt_zh_1K_format.jsonl.gz", "sharegpt", 100, head=100),
    Real("medicalgpt_zh/toolcall_dpo_zh_demo.jsonl", "preference", 11, shape="pair"),
    Real("medicalgpt_zh/dpo_zh_500.jsonl.gz", "preference", 60, shape="pair", head=60),
    Real("emollm_zh/data.json.gz", "exchanges", 60, head=60),
    Real("rasbt_instruction/instruction-data.json", "alpaca", 1100),
    Real("rasbt_instruction/instruction-examples-modified.json", "alpaca", 200),
    Real("rasbt_instruction/instruction-data-with-preference.json", "preference", 1100, 6, shape="pair"),
)


@pytest.fixture(scope="module")
def stories(shared: Path) -> PreTrainedTokenizerBase:
    """A base model's tokenizer of 512 tokens, without a chat template or control tokens, with bytes to fall back to."""
    return AutoTokenizer.from_pretrained(shared / "weights" / "stories260k")


def read(tokenizer: PreTrainedTokenizerBase, file: Path, *, shape: Shape = "single", **values: object) -> Prepared:
    settings = parse(DataSettings, {"train": str(file), **values}, section="data")
    return prepare(settings, tokenizer, ChatTemplate.of(tokenizer, settings.template), shape=shape)


def beginning(file: Path, rows: int, folder: Path) -> Path:
    """The first rows of a file, under its own name without .gz."""
    short = folder / file.name.removesuffix(".gz")
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as stream:
        if ".jsonl" in file.name:
            short.write_text("".join(islice(stream, rows)), encoding="utf-8")
        else:
            short.write_text(json.dumps(json.load(stream)[:rows], ensure_ascii=False), encoding="utf-8")
    return short


@pytest.mark.parametrize("real", FILES, ids=lambda real: real.name)
def test_real_files_are_recognised_and_accounted_for(real: Real, shared: Path, stories: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    file = shared / "data" / real.name
    made = read(stories, beginning(file, real.head, tmp_path) if real.head else file, shape=real.shape, max_length=100_000)
    document = made.ledger.to_json()
    assert [layout.format.name for layout in made.layouts.values()] == [real.format]
    assert (document["total"], document["dropped"]["rows"]) == (real.rows, real.dropped)
    assert sum(document[kind]["rows"] for kind in ("trained", "held_out", "truncated", "masked", "dropped")) == real.rows
    assert document["trained"]["tokens"] + document["truncated"]["tokens"] == sum(one.learned for group in made.groups for one in group)
    assert len(made.groups) >= document["trained"]["rows"] > 0


def test_a_tokenizer_of_105_letters_reports_what_it_cannot_write_and_trains_on_no_garbage(shared: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "weights" / "babyllama-105")
    headlines = shared / "data" / "financial_phrasebank" / "train.jsonl"
    with fault("D034", where="train.jsonl", what="'\\n', which the chat template 'plain' puts into every row") as caught:
        read(tokenizer, headlines)
    assert "'à' (10), 'ó' (9)" in caught.error.what
    (tmp_path / "line.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}: {% endif %}{% endfor %}"
    )
    made = read(tokenizer, headlines, template=str(tmp_path / "line.jinja"))
    assert made.ledger.reasons("dropped") == {"D034 The tokenizer cannot write this text": 41}
    assert "the tokenizer cannot write 'à' (10), 'ó' (9)" in str([str(notice) for notice in made.notices])
    assert not any(tokenizer.unk_token_id in one.tokens for group in made.groups for one in group)
    with fault("D034", where="alpaca_zh_demo.json", what="% of this text", fix="model whose tokenizer"):
        read(tokenizer, shared / "data" / "llamafactory_demos" / "alpaca_zh_demo.json")


def test_real_dirty_data_stops_with_its_place_and_is_counted_when_skipped(shared: Path, stories: PreTrainedTokenizerBase) -> None:
    path = shared / "data" / "instruction_wild" / "user_3.jsonl"
    with fault("D010", where="user_3.jsonl", what="the answers are missing"):
        read(stories, path)
    columns = {"text": "instruction"}
    with fault("D001", where="user_3.jsonl:10:75", what="2 more rows cannot be used (2 x D001)"):
        read(stories, path, columns=columns)
    made = read(stories, path, columns=columns, skip_bad=True)
    assert made.ledger.reasons("dropped") == {"D001 A line is not valid JSON": 3}
    assert made.ledger.to_json()["total"] == 201
