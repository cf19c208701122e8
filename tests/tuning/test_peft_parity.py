"""The same adapter in peft and here: the same logits and the same gradients, written by either and read by the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from hone.tuning import METHODS, trainable
from hone.tuning.opening import open_adapter

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*tie.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning"),
]
TOKENS = torch.arange(2, 22)[None]
SMALL = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2}
BASE = {"name": "owner/base", "fingerprint": "aaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb"}


def make(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes = SMALL if family == "gpt2" else SMALL | {"intermediate_size": 48, "num_key_value_heads": 2}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**sizes))
    assert isinstance(model, PreTrainedModel)
    return model.eval()


def loss_and_logits(model: nn.Module) -> tuple[Tensor, Tensor]:
    logits: Tensor = model(input_ids=TOKENS).logits
    loss = nn.functional.cross_entropy(logits[0, :-1], TOKENS[0, 1:])
    loss.backward()
    return loss.detach(), logits.detach()


@torch.no_grad()
def shake(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in trainable(model).values():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


LORA: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 12}
TWO = ["q_proj", "down_proj"]
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("llama", "lora", "LoraConfig", LORA | {"target_modules": TWO}),
    ("llama", "lora", "LoraConfig", LORA | {"target_modules": TWO, "use_rslora": True, "rank_pattern": {"q_proj": 2}}),
    ("llama", "lora", "LoraConfig", LORA | {"target_modules": TWO, "init_lora_weights": "pissa"}),
    ("llama", "lora", "LoraConfig", LORA | {"target_modules": TWO, "init_lora_weights": "olora"}),
    ("gpt2", "lora", "LoraConfig", LORA | {"target_modules": ["c_attn"], "init_lora_weights": "pissa", "fan_in_fan_out": True}),
    ("llama", "lora", "LoraConfig", LORA | {"target_modules": [*TWO, "embed_tokens"]}),
    ("llama", "lora", "LoraConfig", LORA | {"target_modules": TWO, "modules_to_save": ["lm_head", "embed_tokens", "norm"]}),
    ("llama", "dora", "LoraConfig", LORA | {"target_modules": TWO, "use_dora": True}),
    ("gpt2", "dora", "LoraConfig", LORA | {"target_modules": ["c_attn", "c_fc"], "use_dora": True, "fan_in_fan_out": True}),
    ("llama", "ia3", "IA3Config", {"task_type": "CAUSAL_LM"}),
    ("gpt2", "ia3", "IA3Config", {"task_type": "CAUSAL_LM", "fan_in_fan_out": True}),
    ("llama", "adalora", "AdaLoraConfig", {"task_type": "CAUSAL_LM", "total_step": 10, "init_r": 4, "target_r": 2, "target_modules": TWO}),
]


@pytest.mark.parametrize(("family", "method", "config", "options"), CASES, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(CASES)])
def test_written_by_peft_it_is_the_same_here(tmp_path: Path, family: str, method: str, config: str, options: dict[str, Any]) -> None:
    theirs = peft.get_peft_model(make(family), getattr(peft, config)(**options)).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    tuning = open_adapter(tmp_path).tuning
    assert type(tuning) is METHODS[method]
    ours = make(family)
    tuning.attach(ours, seed=7)
    tuning.load(ours, tmp_path, base=BASE)
    (their_loss, their_logits), (loss, logits) = loss_and_logits(theirs), loss_and_logits(ours)
    with torch.no_grad():
        assert (logits - make(family)(input_ids=TOKENS).logits).abs().max() > 1e-3, "the adapter must matter"
    assert (logits - their_logits).abs().max() <= 1e-5
    assert abs(loss - their_loss) <= 1e-5
    theirs_by_size = sorted(float(p.grad.norm()) for p in trainable(theirs).values() if p.grad is not None)
    ours_by_size = sorted(float(p.grad.norm()) for p in trainable(ours).values() if p.grad is not None)
    assert len(ours_by_size) == len(theirs_by_size)
    assert torch.allclose(torch.tensor(ours_by_size), torch.tensor(theirs_by_size), rtol=1e-4, atol=1e-6)


OURS: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "lora", {"rank": 4, "targets": ("q_proj", "o_proj"), "ranks": {"layers.1.self_attn.q_proj": 2}, "alphas": {"o_proj": 3.0}}),
    ("llama", "lora", {"rank": 4, "init": "pissa", "targets": ("q_proj", "up_proj")}),
    ("gpt2", "lora", {"rank": 4, "init": "olora", "rslora": True}),
    ("llama", "lora", {"rank": 4, "targets": ("embed_tokens", "q_proj")}),
    ("llama", "lora", {"rank": 4, "targets": ("q_proj",), "train": ("lm_head", "embed_tokens")}),
    ("qwen3", "dora", {"rank": 4}),
    ("gpt2", "dora", {"rank": 4, "train": ("ln_f",)}),
    ("qwen3", "ia3", {}),
    ("gpt2", "ia3", {}),
    ("llama", "adalora", {"rank": 4, "target_rank": 2}),
]


@pytest.mark.parametrize(("family", "method", "options"), OURS, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(OURS)])
@torch.no_grad()
def test_written_here_it_is_the_same_in_peft(tmp_path: Path, family: str, method: str, options: dict[str, Any]) -> None:
    tuning, ours = METHODS[method](**options), make(family)
    tuning.attach(ours, seed=1)
    shake(ours)
    if method == "adalora":
        tuning.stepped(with_gradients(ours), step=1, total=1)
    tuning.save(ours, tmp_path, base=BASE)
    theirs = peft.PeftModel.from_pretrained(make(family), tmp_path).eval()
    mine = ours(input_ids=TOKENS).logits
    assert (mine - make(family)(input_ids=TOKENS).logits).abs().max() > 1e-2
    assert (theirs(input_ids=TOKENS).logits - mine).abs().max() <= 1e-5


def with_gradients(model: nn.Module) -> nn.Module:
    """Any gradients, so that importance can be measured."""
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(model).values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def test_gradients_of_dora_are_peft_s_one_by_one() -> None:
    theirs = peft.get_peft_model(make("llama"), peft.LoraConfig(**LORA, target_modules=TWO, use_dora=True)).eval()
    shake(theirs)
    ours = make("llama")
    METHODS["dora"](rank=4, alpha=12.0, targets=tuple(TWO)).attach(ours, seed=0)
    with torch.no_grad():
        for name, parameter in trainable(ours).items():
            parameter.copy_(trainable(theirs)[their_name(name)])
    loss_and_logits(theirs), loss_and_logits(ours)
    for name, parameter in trainable(ours).items():
        other = trainable(theirs)[their_name(name)].grad
        assert (parameter.grad - other).norm() <= 1e-5 * other.norm(), name


def their_name(name: str) -> str:
    path, _, leaf = name.rpartition(".")
    kind = {"a": "lora_A.default.weight", "b": "lora_B.default.weight", "magnitude": "lora_magnitude_vector.default.weight"}
    return f"base_model.model.{path}.{kind[leaf]}"


def test_adalora_prunes_what_peft_s_allocator_prunes() -> None:
    options = {"task_type": "CAUSAL_LM", "total_step": 10, "init_r": 4, "target_r": 2, "tinit": 0, "tfinal": 3, "target_modules": TWO}
    theirs = peft.get_peft_model(make("llama"), peft.AdaLoraConfig(**options))
    ours, tuning = make("llama"), METHODS["adalora"](rank=4, target_rank=2, warmup=0.0, settle=0.3, every=1, targets=tuple(TWO))
    tuning.attach(ours, seed=0)
    names = {name: f"base_model.model.{name[:-2]}.lora_{name[-1].upper()}.default" for name in trainable(ours)}
    shake(theirs)
    with torch.no_grad():
        for name, parameter in trainable(ours).items():
            parameter.copy_(trainable(theirs)[names[name]])
    for step in range(1, 8):
        with_gradients(ours)
        for name, parameter in trainable(ours).items():
            trainable(theirs)[names[name]].grad = parameter.grad.clone()
        tuning.stepped(ours, step=step, total=10)
        theirs.base_model.update_and_allocate(step)
        for name, parameter in trainable(ours).items():
            assert torch.equal(parameter == 0, trainable(theirs)[names[name]] == 0), (step, name)


def test_a_kind_of_ours_says_who_can_open_it(tmp_path: Path) -> None:
    tuning, ours = METHODS["bitfit"](), make("llama")
    tuning.attach(ours, seed=0)
    tuning.save(ours, tmp_path, base=BASE)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["hone"]["method"] == "bitfit"
    with pytest.raises(KeyError, match="open it with `hone chat FOLDER`"):
        peft.PeftModel.from_pretrained(make("llama"), tmp_path)
