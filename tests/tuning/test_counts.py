"""Sizes that were published or measured elsewhere, from configurations alone: no weight is allocated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, BloomConfig, LlamaConfig, Qwen3Config

from hone.tuning import METHODS
from hone.tuning.shapes import Shapes

BLOOMZ_560M = BloomConfig(vocab_size=250880, hidden_size=1024, n_layer=24, n_head=16)
LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)
QWEN_600M = Qwen3Config(
    vocab_size=151936,
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)


@pytest.fixture(scope="module")
def llama() -> Shapes:
    return Shapes.from_config(LLAMA_8B)


@pytest.fixture(scope="module")
def bloomz() -> Shapes:
    return Shapes.from_config(BLOOMZ_560M)


@pytest.fixture(scope="module")
def bert() -> Shapes:
    with torch.device("meta"):
        return Shapes.of(BertModel(BertConfig()))


def count(shapes: Shapes, method: str, **settings: Any) -> int:
    return METHODS[method](**settings).count(shapes)


@pytest.mark.parametrize(("rank", "parameters"), [(8, 20_971_520), (16, 41_943_040), (32, 83_886_080), (64, 167_772_160)])
def test_lora_on_llama_3_1_8b(llama: Shapes, rank: int, parameters: int) -> None:
    assert count(llama, "lora", rank=rank) == parameters


def test_the_whole_of_llama_3_1_8b(llama: Shapes) -> None:
    assert count(llama, "full") == 8_030_261_248


def test_lora_and_ia3_on_bloomz_560m(bloomz: Shapes) -> None:
    assert count(bloomz, "lora", rank=8, targets=("query_key_value",)) == 786_432
    assert count(bloomz, "ia3") == 172_032


def test_bitfit_and_lora_on_bert_base(bert: Shapes) -> None:
    assert count(bert, "bitfit") == 102_912
    assert count(bert, "lora", rank=8, targets=("query", "value")) == 294_912


def test_a_head_that_shares_the_embeddings_matrix_is_counted_once_or_gets_its_own() -> None:
    shapes = Shapes.from_config(QWEN_600M)
    table = 151936 * 1024
    assert shapes.tied
    adapter = count(shapes, "lora", rank=8)
    assert count(shapes, "lora", rank=8, train=("lm_head",)) == adapter + table
    assert count(shapes, "lora", rank=8, train=("lm_head", "embed_tokens")) == adapter + 2 * table
    assert count(shapes, "freeze", last=0, train=("lm_head",)) == table
