"""LoRA on experts, whose weights are stacked: exact to an explicit reference, mergeable, and the same in peft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from hone.core.errors import HoneError
from hone.plan.headers import stored_tensors
from hone.plan.layers import LORA, adapters, linears
from hone.plan.shapes import model_facts
from hone.tuning.base import Ours, trainable
from hone.tuning.dora import Dora
from hone.tuning.experts import LoraExperts, changes_of
from hone.tuning.ia3 import Ia3
from hone.tuning.lora import Lora
from hone.tuning.opening import open_adapter
from hone.tuning.shapes import Shapes

SMALL = {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"intermediate_size": 12, "num_local_experts": 4},
    "qwen3_moe": {"moe_intermediate_size": 12, "num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 12},
    "gpt_oss": {"intermediate_size": 12, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Plain, and with weights that are turned, interleaved and have biases."""
TOKENS = torch.tensor([[5, 9, 40, 33, 21, 8, 30, 14, 3]])
BASE = {"name": "owner/base", "fingerprint": "aaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb"}
TARGETS = ("q_proj", "gate_up_proj", "down_proj")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
families = pytest.mark.parametrize("family", FAMILIES)


def base(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**SMALL, **FAMILIES[family]))
    assert isinstance(model, PreTrainedModel)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    model.set_experts_implementation("eager")  # the default knows no fp64
    return model.to(dtype).eval()  # type: ignore[arg-type]


def tuned(family: str, tuning: Lora, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    model = base(family, dtype)
    tuning.attach(model, seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in trainable(model).values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator).to(dtype)
    return model


def says(model: PreTrainedModel) -> Tensor:
    found: Tensor = model(input_ids=TOKENS).logits  # type: ignore[operator]
    return found


@families
def test_experts_with_a_change_are_experts_with_changed_weights(family: str) -> None:
    """Values and gradients, against the model's own code with W + scale B A in the place of each W."""
    tuning = Lora(rank=2, alpha=6, targets=TARGETS[1:])
    model = tuned(family, tuning, torch.float64)
    (experts,) = (module for module in model.modules() if isinstance(module, LoraExperts))
    hidden = torch.randn(7, 16, dtype=torch.float64, requires_grad=True)
    shares, index = torch.rand(7, 4, dtype=torch.float64).softmax(-1).topk(2)
    turned = experts.base.is_transposed
    whole = {
        name: experts.base.get_parameter(name) + (change.delta().mT if turned else change.delta())  # type: ignore[operator]
        for name, change in experts.changes.items()
    }
    moving = [hidden, *experts.changes.parameters()]
    mine, theirs = experts(hidden, index, shares), functional_call(experts.base, whole, (hidden, index, shares))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    ours, others = (torch.autograd.grad(out.square().sum(), moving) for out in (mine, theirs))
    for one, other in zip(ours, others, strict=True):
        assert one.norm() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@families
def test_it_starts_as_the_base_steps_aside_counts_and_merges(family: str) -> None:
    tuning, plain = Lora(rank=2, targets=TARGETS), says(base(family))
    model = base(family)
    with torch.device("meta"):
        shapes = Shapes.of(AutoModelForCausalLM.from_config(model.config))
    tuning.attach(model, seed=1)
    assert (says(model) - plain).abs().max() <= 1e-5
    assert sum(p.numel() for p in trainable(model).values()) == tuning.count(shapes) == 2 * (16 + 16 + 4 * (16 + 24 + 12 + 16))
    model = tuned(family, tuning)
    said = says(model)
    assert (said - plain).abs().max() > 1e-3
    with tuning.disabled(model):
        assert torch.equal(says(model), plain)
    tuning.merge(model)
    assert not [module for module in model.modules() if isinstance(module, Ours)]
    assert (says(model) - said).abs().max() <= 1e-5
    tuning.attach(model, seed=1)
    tuning.detach(model)
    assert (says(model) - said).abs().max() <= 1e-5


@pytest.mark.parametrize("targets", [TARGETS, ("down_proj",), ("gate_up_proj", "down_proj")], ids=str)
def test_saved_and_opened_it_says_the_same(targets: tuple[str, ...], tmp_path: Path) -> None:
    tuning = Lora(rank=2, alpha=6, targets=targets, ranks={"down_proj": 3}, rslora=True)
    model = tuned("qwen3_moe", tuning)
    tuning.save(model, tmp_path, base=BASE)
    opened = open_adapter(tmp_path).tuning
    assert isinstance(opened, Lora)
    fresh = base("qwen3_moe")
    opened.attach(fresh, seed=7)
    opened.load(fresh, tmp_path, base=BASE)
    assert torch.equal(says(fresh), says(model))
    louder = Lora(rank=2, alpha=12, targets=targets, ranks={"down_proj": 3}, rslora=True)
    again = base("qwen3_moe")
    louder.attach(again, seed=7)
    louder.load(again, tmp_path, base=BASE)
    assert (says(again) - says(model)).abs().max() <= 1e-6


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_peft_reads_ours_and_we_read_pefts(family: str, tmp_path: Path) -> None:
    peft: Any = pytest.importorskip("peft")
    tuning = Lora(rank=2, alpha=6, targets=TARGETS)
    ours = tuned(family, tuning)
    tuning.save(ours, tmp_path / "ours", base=BASE)
    theirs = peft.PeftModel.from_pretrained(base(family), tmp_path / "ours").eval()
    assert (says(theirs) - says(ours)).abs().max() <= 1e-5

    kinds = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]}
    theirs = peft.get_peft_model(base(family), peft.LoraConfig(r=3, lora_alpha=9, task_type="CAUSAL_LM", **kinds)).eval()
    for parameter in trainable(theirs).values():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    theirs.save_pretrained(tmp_path / "theirs")
    opened, model = open_adapter(tmp_path / "theirs").tuning, base(family)
    opened.attach(model, seed=7)
    opened.load(model, tmp_path / "theirs", base=BASE)
    assert len(changes_of(model)) == 2
    assert (says(theirs) - says(model)).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: Lora(targets=TARGETS, dropout=0.1), "M045"),
        (lambda: Lora(targets=TARGETS, init="pissa"), "M045"),
        (lambda: Dora(targets=("gate_up_proj",)), "M004"),
    ],
)
def test_what_experts_cannot_have_is_refused(make: Callable[[], Lora], code: str) -> None:
    with pytest.raises(HoneError, match=code):
        make().attach(base("mixtral"), seed=0)


def test_all_linear_leaves_the_experts_alone() -> None:
    tuning, model = Lora(), base("mixtral")
    shapes = Shapes.of(model)
    tuning.attach(model, seed=0)
    assert len(shapes.experts) == 2
    assert not changes_of(model)
    assert not set(tuning.chosen(shapes)) & shapes.experts.keys()


def test_ia3_rescales_keys_and_values_of_a_mixture() -> None:
    model = base("qwen3_moe")
    tuning = Ia3()
    tuning.attach(model, seed=0)
    assert set(trainable(model)) == {f"model.layers.0.self_attn.{name}.factor" for name in ("k_proj", "v_proj")}
    assert tuning.count(Shapes.of(base("qwen3_moe"))) == 16


@families
def test_the_plan_counts_what_moves(family: str, tmp_path: Path) -> None:
    model = base(family)
    model.save_pretrained(tmp_path)
    facts = model_facts(tmp_path)
    for layers in (linears(facts), linears(facts, stored_tensors(tmp_path))):
        planned = adapters(facts, {"method": "lora", **LORA}, layers)
        assert planned is not None and planned.trainable == Lora().count(Shapes.of(model))
        assert adapters(facts, {"method": "lora", **LORA, "targets": TARGETS}, layers) is None, "only the method knows"
