"""Adapters in PEFT's format: ours in peft, peft's here, each on its own base, and every fault of the files by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hone.core.errors import HoneError
from hone.tuning.folder import check_base
from hone.tuning.lora import Lora, lora_layers
from hone.tuning.peft_io import AdapterFile, check_fit, load_adapter, save_adapter
from hone.tuning.shapes import shape_of

TOKENS = torch.arange(2, 22)[None]
SMALL = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
BASE = {"name": "owner/base", "fingerprint": "aaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb"}
Tensors = dict[str, Tensor]


def make(family: str = "llama", **changes: Any) -> PreTrainedModel:
    """The same random base each time."""
    torch.manual_seed(0)
    sizes = SMALL if family == "gpt2" else SMALL | {"intermediate_size": 48, "num_key_value_heads": 2}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**(sizes | changes)))
    assert isinstance(model, PreTrainedModel)
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    answer: Tensor = model(input_ids=TOKENS).logits
    return answer


@torch.no_grad()
def randomise(model: nn.Module, part: str) -> None:
    """Give B, which starts at zero, values that change the answers."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.normal_(std=0.2)


def trained(lora: Lora, model: PreTrainedModel) -> PreTrainedModel:
    lora.attach(model, seed=1)
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.b, std=0.2, generator=torch.Generator().manual_seed(layer.b.shape[0]))
    return model.eval()


def refused(code: str, call: Callable[[], object]) -> HoneError:
    with pytest.raises(HoneError) as caught:
        call()
    assert caught.value.code == code, caught.value
    assert caught.value.fix, "an error says how to mend it"
    return caught.value


OURS = [
    ("llama", {}),
    ("llama", {"rank": 4, "alpha": 3.0, "rslora": True, "targets": ("q_proj", "v_proj")}),
    ("llama", {"rank": 4, "layers": (1,), "exclude": ("down_proj",)}),
    ("gpt2", {"rank": 4, "dropout": 0.1}),
]


in_peft = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
"""peft asks transformers for a property by its old name."""


@in_peft
@pytest.mark.parametrize(("family", "options"), OURS, ids=str)
def test_ours_load_in_peft(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    lora = Lora(**options)
    model = trained(lora, make(family))
    lora.save(model, tmp_path, base=BASE)
    theirs = peft.PeftModel.from_pretrained(make(family), tmp_path).eval()
    assert (logits(model) - logits(make(family))).abs().max() > 1e-2, "the adapter must matter"
    assert (logits(theirs) - logits(model)).abs().max() <= 1e-5


THEIRS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"target_modules": ["q_proj", "down_proj"]}),
    ("llama", {"target_modules": "all-linear", "use_rslora": True, "r": 4}),
    ("llama", {"target_modules": r".*layers\.1\..*(q|o)_proj", "r": 4}),
    ("llama", {"target_modules": ["q_proj", "k_proj", "up_proj"], "layers_to_transform": [0]}),
    ("llama", {"target_modules": ["q_proj", "k_proj", "up_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}),
    (
        "llama",
        {"target_modules": ["q_proj", "up_proj"], "rank_pattern": {"up_proj": 2}, "alpha_pattern": {"layers.0.self_attn.q_proj": 40}},
    ),
    ("llama", {"target_modules": ["q_proj"], "use_rslora": True, "rank_pattern": {r"layers\.1.*": 3}, "init_lora_weights": "gaussian"}),
    ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "r": 4}),
]


@in_peft
@pytest.mark.parametrize(("family", "options"), THEIRS, ids=str)
def test_theirs_load_here(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(make(family), peft.LoraConfig(task_type="CAUSAL_LM", **({"lora_alpha": 12} | options))).eval()
    randomise(theirs, "lora_B")
    theirs.save_pretrained(tmp_path)
    stored = load_adapter(tmp_path, base=BASE)
    ours, lora = make(family), Lora(**stored.settings())
    check_fit(
        stored,
        {name: shape_of(layer) for name, layer in ours.named_modules() if isinstance(layer, nn.Linear | Conv1D)},
        where="",
    )
    lora.attach(ours, seed=7)
    lora.load(ours, tmp_path, base=BASE)
    assert (logits(theirs) - logits(make(family))).abs().max() > 1e-2, "the adapter must matter"
    assert (logits(ours) - logits(theirs)).abs().max() <= 1e-5
    lora.save(ours, tmp_path / "again", base=BASE)
    again = peft.PeftModel.from_pretrained(make(family), tmp_path / "again").eval()
    assert (logits(again) - logits(theirs)).abs().max() <= 1e-5


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A good adapter of ours on a two-layer Llama."""
    lora = Lora(rank=4, targets=("q_proj", "v_proj"))
    model = trained(lora, make())
    linear = [name for name, module in make().named_modules() if isinstance(module, nn.Linear)]
    tensors = {name: (layer.a.detach(), layer.b.detach()) for name, layer in lora_layers(model).items()}
    save_adapter(tmp_path, tensors, {"r": 4, "lora_alpha": 8.0}, base=BASE, linear=linear)
    return tmp_path


def edit(folder: Path, **changes: Any) -> None:
    file = folder / "adapter_config.json"
    kept = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not ...}))


def edit_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def shapes_of(model: nn.Module) -> dict[str, tuple[int, int]]:
    return {name: shape_of(module) for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def test_what_is_written_comes_back(adapter: Path) -> None:
    stored = load_adapter(adapter, base=BASE)
    assert stored.base == BASE
    assert stored.notes == ()
    assert len(stored.tensors) == 4
    assert {a.dtype for a, _ in stored.tensors.values()} == {torch.float32}
    assert Lora(**stored.settings()) == Lora(rank=4, alpha=8.0, targets=tuple(sorted(stored.tensors)))
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert config["lora_alpha"] == 8
    assert config["bias"] == "none"


def test_short_names_are_used_only_where_they_mean_the_same_layers(tmp_path: Path) -> None:
    pair = (torch.ones(2, 32), torch.ones(32, 2))
    one = {"model.layers.1.self_attn.q_proj": pair}
    for linear in ((), [f"model.layers.{i}.self_attn.q_proj" for i in range(2)]):
        save_adapter(tmp_path, one, {"r": 2, "lora_alpha": 4}, base=BASE, linear=linear)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == list(one)


def test_another_base_is_refused(adapter: Path) -> None:
    same_shape = BASE | {"name": "other", "fingerprint": "aaaaaaaaaaaaaaaa-cccccccccccccccc"}
    error = refused("M003", lambda: load_adapter(adapter, base=same_shape))
    assert "same architecture, other weights" in error.what
    assert "model=owner/base" in error.fix
    deeper = BASE | {"fingerprint": "dddddddddddddddd-cccccccccccccccc"}
    assert "another architecture" in refused("M003", lambda: load_adapter(adapter, base=deeper)).what
    check_base({"name": "unknown to us"}, BASE, where="")


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"hidden_size": 64, "intermediate_size": 96}])
def test_without_a_fingerprint_layers_and_sizes_tell_another_base(adapter: Path, changes: dict[str, int]) -> None:
    stored = load_adapter(adapter)
    check_fit(stored, shapes_of(make()), where="here")
    refused("M003", lambda: check_fit(stored, shapes_of(make(**changes)), where="here"))


def test_an_adapter_that_reaches_no_layer_lists_near_names(adapter: Path) -> None:
    stored = load_adapter(adapter)
    lost = AdapterFile(stored.config, {"model.layers.0.self_attn.q_prj": next(iter(stored.tensors.values()))}, {})
    assert "model.layers.0.self_attn.q_proj" in refused("M004", lambda: check_fit(lost, shapes_of(make()), where="here")).fix


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"r": 0}, "M004", "rank 0"),
        ({"r": "8"}, "M004", "rank '8'"),
        ({"r": True}, "M004", "rank True"),
        ({"lora_alpha": 0}, "M004", "lora_alpha 0"),
        ({"lora_alpha": "x"}, "M013", "lora_alpha"),
        ({"r": 8}, "M005", "rank 8"),
        ({"target_modules": "layers.(0"}, "M004", "regular expression"),
        ({"target_modules": 5}, "M004", "5"),
        ({"rank_pattern": {"q_proj": 0}}, "M004", "rank 0"),
        ({"rank_pattern": {"(": 4}}, "M004", "regular expression"),
        ({"rank_pattern": [4]}, "M013", "rank_pattern"),
        ({"peft_type": "IA3"}, "M019", "IA3"),
        ({"peft_type": ...}, "M019", "None"),
        ({"task_type": "SEQ_CLS"}, "M019", "task_type"),
        ({"bias": "lora_only"}, "M019", "bias"),
        ({"lora_bias": True}, "M019", "lora_bias"),
        ({"trainable_token_indices": {"embed_tokens": [1], "lm_head": [2]}}, "M019", "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "M019", "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "M019", "pissa_niter_4"),
        ({"a_new_option_of_2030": "on"}, "M019", "a_new_option_of_2030"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_by_name(adapter: Path, changes: dict[str, Any], code: str, said: str) -> None:
    edit(adapter, **changes)
    assert said in refused(code, lambda: load_adapter(adapter)).what


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda t: t.clear(), "M004", "no layers"),
        (lambda t: t.pop(Q), "M005", "half"),
        (lambda t: t[Q].fill_(float("nan")), "M005", "no finite"),
        (lambda t: t.update({Q: torch.ones(4, 4, 4)}), "M005", "rank 4"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(2)}), "M019", "lm_head"),
        (lambda t: t.update({"base_model.model.model.embed_tokens.lora_embedding_A": torch.ones(2)}), "M005", "half"),
        (lambda t: t.update({Q.replace("lora_A", "lora_magnitude_vector"): torch.ones(2)}), "M019", "lora_magnitude_vector"),
    ],
    ids=["none", "half", "nan", "shape", "whole module", "embedding", "dora"],
)
def test_tensors_that_cannot_be_honoured_are_refused(adapter: Path, change: Callable[[Tensors], object], code: str, said: str) -> None:
    edit_tensors(adapter, change)
    assert said in refused(code, lambda: load_adapter(adapter)).what


def test_files_that_are_not_there_or_damaged(adapter: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[: len(raw) // 2])
    refused("M005", lambda: load_adapter(adapter))
    weights.rename(adapter / "adapter_model.bin")
    refused("M008", lambda: load_adapter(adapter))
    (adapter / "adapter_model.bin").unlink()
    refused("M009", lambda: load_adapter(adapter))
    (adapter / "adapter_config.json").write_text("[")
    refused("M013", lambda: load_adapter(adapter))
    refused("M009", lambda: load_adapter(tmp_path / "nowhere"))


def test_an_adapter_moves_to_a_larger_rank_and_another_scale_unchanged(adapter: Path) -> None:
    stored = load_adapter(adapter)
    lora = Lora(rank=7, alpha=3.0, rslora=True, targets=tuple(stored.tensors))
    for path, (a, b) in stored.at(dict.fromkeys(stored.tensors, (7, lora.scale))).items():
        before = stored.config.scale(path) * stored.tensors[path][1] @ stored.tensors[path][0]
        assert a.shape[0] == b.shape[1] == 7
        torch.testing.assert_close(lora.scale * b @ a, before)
    refused("M003", lambda: stored.at(dict.fromkeys(stored.tensors, (3, 1.0))))


def test_an_adapter_that_changes_nothing_is_noted(adapter: Path) -> None:
    edit_tensors(adapter, lambda t: [tensor.zero_() for name, tensor in t.items() if "lora_B" in name])
    assert "changes nothing" in load_adapter(adapter).notes[0]


def test_a_write_that_fails_leaves_the_old_adapter(adapter: Path) -> None:
    before = (adapter / "adapter_model.safetensors").read_bytes()
    pair = (torch.ones(2, 32), torch.ones(32, 2))
    with pytest.raises(KeyError):
        save_adapter(adapter, {"model.layers.0.self_attn.q_proj": pair}, {"r": 2}, base=BASE)
    assert (adapter / "adapter_model.safetensors").read_bytes() == before
    assert sorted(file.name for file in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
