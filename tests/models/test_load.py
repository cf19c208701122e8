"""Loading: a good model loads exactly, and every fault of a folder is named before anything is trained on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from hone.core.errors import HoneError
from hone.models.load import Loaded, load
from tests.models.tiny_models import SIZES, WORDS, edit_json, edit_weights, make_tokenizer, split

Copy = Callable[..., Path]


def load_here(folder: Path, **options: Any) -> Loaded:
    return load(folder, **({"dtype": "float32", "device": "cpu"} | options))


def refused(folder: Path | str, **options: Any) -> HoneError:
    with pytest.raises(HoneError) as caught:
        load(folder, **({"dtype": "float32", "device": "cpu"} | options))
    assert caught.value.what, "an error says what happened"
    assert caught.value.fix, "and how to mend it"
    return caught.value


@pytest.mark.parametrize("family", SIZES)
def test_a_good_model_of_every_family_loads_exactly(copy_of: Copy, family: str) -> None:
    folder = copy_of(family)
    loaded = load_here(folder)
    tokens = torch.arange(3, 19)[None]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(loaded.model(input_ids=tokens).logits, plain(input_ids=tokens).logits)
    assert loaded.base == {"name": str(folder), "fingerprint": loaded.fingerprint}
    assert loaded.notes[0] == "weights in float32 on cpu: as asked"
    assert not loaded.model.training


def test_weights_come_in_the_type_asked_for(copy_of: Copy) -> None:
    loaded = load_here(copy_of(), dtype="bf16")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}


def test_shards_load_like_one_file(copy_of: Copy) -> None:
    whole, parts = copy_of(name="whole"), copy_of(name="parts")
    split(parts)
    a, b = load_here(whole), load_here(parts)
    assert a.fingerprint == b.fingerprint
    for name, tensor in a.model.state_dict().items():
        assert torch.equal(tensor, b.model.state_dict()[name]), name


def test_logging_is_left_as_it_was(copy_of: Copy) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_here(copy_of())
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[name]

    return change


def _with(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = make(tensors.get(name, torch.ones(3)))

    return change


def _poisoned(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[7] = value
        return tensor

    return change


Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without(Q), ["1 tensor is missing", Q]),
        (_without("lm_head.weight"), ["missing", "lm_head.weight"]),
        (_with("model.layers.9.extra", lambda t: t), ["not part of this architecture", "model.layers.9.extra"]),
        (_with(Q, lambda t: t[:, :16].contiguous()), ["shape (32, 16)", "(32, 32)", Q]),
        (_with(Q, _poisoned(float("nan"))), ["1 of 1,024 values", Q, "model.safetensors"]),
        (_with("model.norm.weight", _poisoned(float("inf"))), ["model.norm.weight"]),
    ],
    ids=["missing", "no head", "unexpected", "shape", "nan", "inf"],
)
def test_wrong_tensors_are_named(copy_of: Copy, change: Callable[[dict[str, torch.Tensor]], None], said: list[str]) -> None:
    folder = copy_of()
    edit_weights(folder, change)
    error = refused(folder)
    assert error.code == "M005"
    assert all(part in error.what for part in said), error.what


def test_a_number_too_large_for_float16_is_told_apart_from_a_broken_model(copy_of: Copy) -> None:
    folder = copy_of()
    edit_weights(folder, _with(Q, _poisoned(1e5)))
    load_here(folder)
    error = refused(folder, dtype="float16")
    assert error.code == "M005"
    assert "65504" in error.what
    assert "float32" in error.fix


def test_a_head_that_contradicts_its_tie_is_refused_and_an_equal_copy_is_not(copy_of: Copy) -> None:
    folder = copy_of("qwen3")
    edit_weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    plain = load_here(folder)
    assert plain.model.lm_head.weight is plain.model.model.embed_tokens.weight
    edit_weights(folder, _with("lm_head.weight", _poisoned(0.5)))
    error = refused(folder)
    assert error.code == "M005"
    assert "lm_head.weight" in error.what


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: b"", "empty"),
        (lambda raw: raw[:5], "cut short"),
        (lambda raw: raw[:-100], "cut short in tensor"),
        (lambda raw: raw + b"xx", "2 bytes that belong to no tensor"),
        (lambda raw: (2**63).to_bytes(8, "little") + raw[8:], "header of 9,223,372,036,854,775,808 bytes"),
        (lambda raw: raw[:8] + b"!" * 40 + raw[48:], "no readable table of contents"),
        (lambda raw: raw.replace(b'"F32"', b'"F99"'), "cannot be read"),
    ],
    ids=["empty", "7 bytes", "cut", "longer", "absurd header", "no JSON", "unknown type"],
)
def test_damaged_files_are_named(copy_of: Copy, damage: Callable[[bytes], bytes], said: str) -> None:
    folder = copy_of()
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    error = refused(folder)
    assert error.code == "M005"
    assert said in error.what
    assert str(folder) in error.where


def test_a_lost_shard_and_a_false_index_are_named(copy_of: Copy) -> None:
    folder = copy_of()
    split(folder)
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    shard = sorted(set(good["weight_map"].values()))[1]
    (folder / shard).rename(folder / "elsewhere")
    assert shard in refused(folder).what
    (folder / "elsewhere").rename(folder / shard)
    edit_json(index, weight_map=good["weight_map"] | {"model.ghost": shard})
    assert "model.ghost" in refused(folder).what
    edit_json(index, weight_map=good["weight_map"] | {"model.ghost": "../../secret.safetensors"})
    assert "outside its folder" in refused(folder).what


def test_a_download_that_never_ended_is_named(copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "blobs" / "not-there")
    error = refused(folder)
    assert error.code == "M005" and "no weights" in error.what


@pytest.mark.parametrize(("name", "rows"), [("stories260k", 512), ("babyllama-105", 105)])
def test_small_models_from_the_wild_load(shared: Path, name: str, rows: int) -> None:
    loaded = load_here(shared / "weights" / name, dtype="auto")
    assert loaded.model.get_input_embeddings().weight.shape[0] == rows
    assert "times as fast" in loaded.notes[0] or "HONE_DTYPE" in loaded.notes[0]


def test_a_tokenizer_larger_than_the_model_names_both_sizes(copy_of: Copy) -> None:
    folder = copy_of()
    make_tokenizer(folder, [*WORDS, "one", "two"])
    error = refused(folder)
    assert error.code == "M001"
    assert "up to 49 ('two')" in error.what
    assert "48 embedding rows" in error.what


def test_no_tokenizer_and_a_broken_one(copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordLevel"')
    assert refused(folder).code == "M015"
    (folder / "tokenizer.json").unlink()
    assert refused(folder).code == "M015"


def test_special_tokens_that_do_not_fit_are_noted(copy_of: Copy) -> None:
    folder = copy_of()
    make_tokenizer(folder, WORDS, eos_token=None)
    assert any("no end-of-sequence token" in note for note in load_here(folder).notes)
    make_tokenizer(folder, WORDS, eos_token="w0", pad_token="w0")
    notes = " ".join(load_here(folder).notes)
    assert "config.json ends answers at token 2 ('</s>'), the tokenizer at 3 ('w0')" in notes
    assert "padding and end of sequence are the same token" in notes
    make_tokenizer(folder, WORDS, eos_token="<unk>")
    assert any("teaches the model to stop" in note for note in load_here(folder).notes)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "M006", "left to right"),
        ({"model_type": "bert", "architectures": ...}, "M006", "left to right"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "M006", "encoder-decoder"),
        ({"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}, "M006", "images"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "M006", "LlamaForSequenceClassification"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "M006", "already quantised (gptq)"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "M089", "no quantised weight"),
        ({"model_type": "lama"}, "M014", "no architecture 'lama'"),
        ({"model_type": ...}, "M013", "names no model_type"),
        ({"hidden_size": "32"}, "M013", "hidden_size = '32'"),
        ({"hidden_size": -1}, "M013", "hidden_size = -1"),
        ({"num_hidden_layers": ...}, "M013", "num_hidden_layers"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "M013", "can be built"),
        ({"hidden_act": "swooosh"}, "M013", "can be built"),
        ({"num_hidden_layers": 3}, "M005", "missing"),
        ({"num_hidden_layers": 1}, "M005", "not part of this architecture"),
        ({"vocab_size": 64}, "M005", "shape (48, 32)"),
    ],
)
def test_configurations_that_cannot_be_trained(copy_of: Copy, changes: dict[str, Any], code: str, said: str) -> None:
    folder = copy_of()
    edit_json(folder / "config.json", **changes)
    error = refused(folder)
    assert error.code == code, error
    assert said in error.what


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, ""], ids=["cut", "list", "deep", "empty"])
def test_a_config_that_is_no_config(copy_of: Copy, text: str) -> None:
    folder = copy_of()
    (folder / "config.json").write_text(text)
    assert refused(folder).code == "M013"


def test_an_attention_that_is_not_installed_does_not_matter(copy_of: Copy) -> None:
    folder = copy_of()
    edit_json(folder / "config.json", _attn_implementation="flash_attention_3")
    assert load_here(folder).model.config._attn_implementation == "sdpa"


def test_names_that_are_no_model(copy_of: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of(name="seedling")
    monkeypatch.chdir(tmp_path)
    assert f"did you mean '{folder}'?" in refused("./seedlin").fix
    assert f"did you mean '{folder}'?" in refused(tmp_path / "seedlimg").fix
    assert str(folder) in refused(tmp_path).fix
    assert refused("").code == refused("not a name!").code == refused("../../etc").code == "M009"
    shutil.copytree(folder, tmp_path / "models" / "qwen-small")
    assert "qwen-small" in refused("models/qwen-smal").fix
    assert str(folder) in refused(folder / "config.json").fix


def test_adapters_gguf_and_pickles_given_as_models(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    error = refused(tmp_path / "adapter")
    assert error.code == "M009"
    assert "model=owner/base" in error.fix
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "m.q4.gguf").write_bytes(b"GGUF")
    assert refused(tmp_path / "gguf").code == refused(tmp_path / "gguf" / "m.q4.gguf").code == "M006"
    (tmp_path / "model.pt").write_bytes(b"")
    assert refused(tmp_path / "model.pt").code == "M008"


def test_a_device_or_type_that_is_not_there(copy_of: Copy) -> None:
    folder = copy_of()
    assert refused(folder, device="cuda:77").code == "M020"
    assert refused(folder, device="gpu").code == "M020"
    error = refused(folder, dtype="bfloat61")
    assert error.code == "M020"
    assert "bfloat16" in error.fix
