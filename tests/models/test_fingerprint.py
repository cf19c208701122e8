"""The fingerprint is one for every copy of a model and another one for every other model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hone.models.fingerprint import fingerprint
from tests.models.tiny_models import edit_json, edit_weights, split

Copy = Callable[..., Path]
Tensors = dict[str, torch.Tensor]


def _rename(tensors: Tensors) -> None:
    for name in list(tensors):
        if name.startswith("model."):
            tensors[name.removeprefix("model.")] = tensors.pop(name)


def _to_bf16(tensors: Tensors) -> None:
    tensors.update({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()})


def _buffers(tensors: Tensors) -> None:
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)


@pytest.mark.parametrize("change", [_rename, _to_bf16, _buffers], ids=["other prefix", "bfloat16", "with buffers"])
def test_copies_agree(copy_of: Copy, change: Callable[[Tensors], None]) -> None:
    folder = copy_of()
    before = fingerprint(folder)
    edit_weights(folder, change)
    assert fingerprint(folder) == before


def test_shards_and_a_head_stored_twice_agree(copy_of: Copy) -> None:
    folder = copy_of("qwen3")
    before = fingerprint(folder)
    edit_weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    assert fingerprint(folder) == before
    split(folder)
    assert fingerprint(folder) == before


def test_settings_that_change_no_weight_do_not_matter(copy_of: Copy) -> None:
    folder = copy_of()
    before = fingerprint(folder)
    edit_json(folder / "config.json", transformers_version="9.9", use_cache=False, dtype="bfloat16", max_position_embeddings=4096)
    assert fingerprint(folder) == before


@pytest.mark.parametrize("name", ["model.layers.0.input_layernorm.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"])
def test_other_weights_differ_in_the_second_half_only(copy_of: Copy, name: str) -> None:
    folder = copy_of()
    before = fingerprint(folder)
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name] * 1.02 + 0.001}))
    after = fingerprint(folder)
    assert after.partition("-")[0] == before.partition("-")[0]
    assert after != before


def test_a_deeper_model_differs_in_the_first_half(copy_of: Copy) -> None:
    shallow, deep = copy_of(name="a"), copy_of(name="b", num_hidden_layers=3)
    assert fingerprint(shallow).partition("-")[0] != fingerprint(deep).partition("-")[0]


def test_little_is_read(copy_of: Copy) -> None:
    """A change outside the middle row is not seen: the fingerprint tells models apart, it does not replace a checksum."""
    folder = copy_of()
    before = fingerprint(folder)
    edit_weights(folder, lambda tensors: tensors["lm_head.weight"][0].fill_(9.0))
    assert fingerprint(folder) == before


def test_saving_a_loaded_model_keeps_its_fingerprint(copy_of: Copy, tmp_path: Path) -> None:
    for family in ("llama", "gpt2", "mixtral"):
        folder = copy_of(family, name=family)
        AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / f"{family}-again")
        assert fingerprint(folder) == fingerprint(tmp_path / f"{family}-again"), family
