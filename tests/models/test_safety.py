"""Nothing in a model's folder runs code: keys that could are refused, pickles are never opened, and good models are not bothered."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.core.errors import HoneError
from hone.models.load import load
from hone.models.safety import CODE_KEYS, check_config, check_weights
from tests.models.tiny_models import edit_json

Copy = Callable[..., Path]


def code_of(config: dict[str, Any]) -> str:
    """The code that a configuration is refused with, or nothing."""
    try:
        check_config(config, where="config.json")
    except HoneError as error:
        return error.code
    return ""


DANGEROUS = [
    {"auto_map": {"AutoModelForCausalLM": "modeling.Model"}},
    {"auto_map": {"AutoModelForCausalLM": "someone/else--modeling.Model"}},
    {"_attn_implementation_internal": "someone/kernel"},
    {"_attn_implementation": "kernels-community/flash-attn"},
    {"attn_implementation": "someone/kernel:function"},
    {"attn_implementation": {"text_config": "someone/kernel"}},
    {"_experts_implementation_internal": "someone/kernel"},
    {"experts_implementation": "someone/kernel"},
    {"text_config": {"attn_implementation": "someone/kernel"}},
    {"use_kernels": True},
    {"kernel_config": {"kernel_mapping": {"RMSNorm": "someone/kernel:RMSNorm"}}},
    {"layer_kernel_mapping": {"RMSNorm": "someone/kernel"}},
    {"fusion_config": {"patch_embeddings": True}},
    {"custom_pipelines": {"text": {"impl": "pipe.Pipe"}}},
    {"trust_remote_code": True},
    {"__class__": "Config"},
    {"__init__": 1},
    {"_some_private_state": "text"},
    {"_some_private_state": {"a": 1}},
    {"quantization_config": {"quant_method": "new", "module": "package.module:function"}},
    {"quantization_config": {"quant_method": "new", "quantizer_class": "package.module.Quantizer"}},
    {"quantization_config": {"quant_method": "gptq", "auto_map": {"AutoConfig": "x.Y"}}},
    {"sub_models": [{"deep": [{"auto_map": {"AutoModel": "x.Y"}}]}]},
]

HARMLESS = [
    {"_name_or_path": "owner/model", "_attn_implementation_autoset": True, "_attn_implementation": "sdpa"},
    {"attn_implementation": "flash_attention_2", "_flash_attn_2_enabled": True, "_remove_final_layer_norm": False},
    {"auto_map": {}, "use_kernels": False, "quantization_config": None},
    {"conv_kernel": 4, "linear_conv_kernel_dim": 4, "use_mamba_kernels": True},
    {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"},
    {"quantization_config": {"quant_method": "bitsandbytes", "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"]}},
    {"added_tokens_decoder": {"0": {"__type": "AddedToken", "content": "<s>"}}, "tokenizer_class": "LlamaTokenizer"},
    {"_from_model_config": True, "eos_token_id": [1, 2], "_sliding_window_pattern": 6},
]


@pytest.mark.parametrize("config", DANGEROUS, ids=str)
def test_keys_that_can_run_code_are_refused(config: dict[str, Any]) -> None:
    assert code_of({"model_type": "llama", **config}) == "M007"


@pytest.mark.parametrize("config", HARMLESS, ids=str)
def test_keys_that_real_models_have_are_not(config: dict[str, Any]) -> None:
    assert code_of({"model_type": "llama", **config}) == ""


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcdef"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(PLAIN, st.lists(st.sampled_from(["list", "a", "text_config", "quantization_config"]), max_size=6), st.sampled_from(CODE_KEYS))
def test_no_depth_hides_a_key(plain: Any, path: list[str], key: str) -> None:
    assert code_of({"a": plain}) == ""
    hidden: Any = {key: {"a": "b"}}
    for step in path:
        hidden = [plain, hidden] if step == "list" else {"b": plain, step: hidden}
    assert code_of({"a": plain, "c": hidden}) == "M007"


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_every_file_that_is_acted_upon_is_checked(copy_of: Copy, file: str) -> None:
    folder = copy_of()
    edit_json(folder / file, auto_map={"AutoTokenizer": ["tokens.Tokenizer", None]})
    with pytest.raises(HoneError) as caught:
        load(folder, dtype="float32", device="cpu")
    assert caught.value.code == "M007"
    assert "auto_map" in caught.value.what
    assert file in caught.value.where


def test_a_config_cannot_choose_another_weights_file() -> None:
    assert code_of({"transformers_weights": "pytorch_model.bin"}) == "M008"
    assert code_of({"transformers_weights": "model.safetensors"}) == ""


class _Bomb:
    """A pickle that touches a file when it is opened."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl", "model.ckpt"])
def test_pickles_are_refused_unopened(copy_of: Copy, tmp_path: Path, name: str) -> None:
    folder = copy_of()
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Bomb(str(tmp_path / "exploded"))))
    with pytest.raises(HoneError) as caught:
        load(folder, dtype="float32", device="cpu")
    assert caught.value.code == "M008"
    assert name in caught.value.what
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_beside_safetensors_is_left_alone(copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(str(tmp_path / "exploded"))))
    load(folder, dtype="float32", device="cpu")
    assert not (tmp_path / "exploded").exists()


def test_a_distributed_checkpoint_is_refused(copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"")
    with pytest.raises(HoneError) as caught:
        load(folder, dtype="float32", device="cpu")
    assert caught.value.code == "M008"


def test_weights_of_every_kind_are_judged_by_their_names() -> None:
    check_weights(["model.safetensors", "pytorch_model.bin"], where="here")
    for names, code in ((["a.gguf"], "M006"), (["pytorch_model.bin"], "M008"), (["x.safetensors"], "M005"), (["README.md"], "M005")):
        with pytest.raises(HoneError) as caught:
            check_weights(names, where="here")
        assert caught.value.code == code, names
