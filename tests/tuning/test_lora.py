"""LoRA starts as the base, steps aside exactly, folds in exactly, and adapts the layers that were asked for."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.data.batching import pack
from hone.models.policy import Policy
from hone.tuning import Ours, trainable
from hone.tuning.lora import Lora, lora_layers
from hone.tuning.lowrank import LoraLinear, LowRank
from hone.tuning.shapes import shape_of
from hone.tuning.starts import start
from hone.tuning.whole import train_whole
from tests import nets

LOGP = "logp"
BATCH = pack(nets.singles(4))
BASE = {"name": "tiny", "fingerprint": "shape-bytes"}
LINEAR = {"qwen3": 2 * 7, "llama": 2 * 7, "gpt2": 2 * 4}
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def adapted(lora: Lora, make: str = "qwen3", *, moved: bool = True) -> nn.Module:
    return nets.policy(nets.MODELS[make], lora, moved=moved).model


def adapted_names(**settings: object) -> list[str]:
    model = nets.qwen3()
    Lora(rank=2, **settings).attach(model, seed=0)  # type: ignore[arg-type]
    return list(lora_layers(model))


@torch.no_grad()
def said(policy: Policy) -> Tensor:
    return policy.signals(BATCH, LOGP).logp


def untuned(make: str, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    model = nets.MODELS[make]().to(dtype)
    nets.fuse(model)
    return said(Policy.of(model, Lora()))


@pytest.mark.parametrize("make", nets.MODELS)
def test_an_adapter_starts_as_the_base(make: str) -> None:
    base = untuned(make)
    fresh = said(nets.policy(nets.MODELS[make], Lora(rank=4), moved=False))
    assert (fresh - base).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("make", nets.MODELS)
def test_stepping_aside_shows_the_base_exactly(make: str, dtype: torch.dtype) -> None:
    tuning = Lora(rank=4)
    policy = nets.policy(nets.MODELS[make], tuning, dtype)
    tuned = said(policy)
    with tuning.disabled(policy.model):
        assert (said(policy) - untuned(make, dtype)).abs().max() == 0
    assert (said(policy) - tuned).abs().max() == 0
    assert (tuned - untuned(make, dtype)).abs().max() > 1e-2


def test_an_error_while_it_steps_aside_brings_it_back() -> None:
    tuning = Lora(rank=4)
    model = adapted(tuning)
    with pytest.raises(ZeroDivisionError), tuning.disabled(model):
        raise ZeroDivisionError
    assert all(layer.active for layer in lora_layers(model).values())


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("make", nets.MODELS)
def test_merging_changes_nothing(make: str, rslora: bool) -> None:
    tuning = Lora(rank=4, rslora=rslora)
    policy = nets.policy(nets.MODELS[make], tuning)
    before = said(policy)
    tuning.merge(policy.model)
    assert not lora_layers(policy.model)
    assert (said(policy) - before).abs().max() <= 1e-5


@pytest.mark.parametrize("make", nets.MODELS)
def test_what_moves_is_rank_times_both_sides(make: str) -> None:
    model = adapted(Lora(rank=3), make)
    layers = lora_layers(model)
    assert len(layers) == LINEAR[make]
    assert sum(p.numel() for p in trainable(model).values()) == sum(3 * sum(shape_of(layer.base)) for layer in layers.values())
    assert trainable(model).keys() == {f"{name}.{half}" for name in layers for half in "ab"}


def test_masters_stay_wide_over_narrow_weights() -> None:
    model = nets.policy(nets.qwen3, Lora(rank=2), torch.bfloat16).model
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


@pytest.mark.parametrize("make", nets.MODELS)
def test_saved_and_read_back_it_says_the_same(make: str, tmp_path: Path) -> None:
    tuning = Lora(rank=4, alpha=6, targets="all-linear")
    policy = nets.policy(nets.MODELS[make], tuning)
    tuning.save(policy.model, tmp_path, base=BASE)
    fresh = nets.policy(nets.MODELS[make], tuning, moved=False)
    tuning.load(fresh.model, tmp_path, base=BASE)
    assert (said(fresh) - said(policy)).abs().max() == 0
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (4, 6, make == "gpt2")


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    tuning = Lora(rank=4)
    model = adapted(tuning)
    tuning.save(model, tmp_path, base=BASE)
    with pytest.raises(HoneError) as caught:
        tuning.load(model, tmp_path, base={"name": "other", "fingerprint": "shape-other"})
    assert caught.value.code == "M003"


@pytest.mark.parametrize(
    "stored", [Lora(rank=1), Lora(rank=2), Lora(rank=4, alpha=60), Lora(rank=4, rslora=True)], ids=["1", "2", "alpha", "rslora"]
)
def test_an_adapter_of_another_rank_or_scale_says_the_same_or_is_refused(stored: Lora, tmp_path: Path) -> None:
    policy = nets.policy(nets.qwen3, stored)
    stored.save(policy.model, tmp_path, base=BASE)
    tuning = Lora(rank=4)
    fresh = nets.policy(nets.qwen3, tuning, moved=False)
    try:
        tuning.load(fresh.model, tmp_path, base=BASE)
    except HoneError:
        return
    assert (said(fresh) - said(policy)).abs().max() <= 1e-5


def test_a_broken_pattern_is_the_users_fault() -> None:
    with pytest.raises(HoneError) as caught:
        adapted_names(targets=("q_proj(",))
    assert caught.value.code == "M004"


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"targets": ("q_proj", "v_proj")}, {"q_proj", "v_proj"}),
        ({"targets": "o_proj"}, {"o_proj"}),
        ({"targets": r".*\.mlp\..*"}, {"gate_proj", "up_proj", "down_proj"}),
        ({"exclude": (r".*self_attn.*",)}, {"gate_proj", "up_proj", "down_proj"}),
        ({"targets": r".*_proj", "exclude": ("down_proj",)}, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}),
    ],
)
def test_targets_and_exclude_choose_by_name_or_pattern(settings: dict[str, object], ends: set[str]) -> None:
    names = adapted_names(**settings)
    assert {name.rpartition(".")[2] for name in names} == ends
    assert len(names) == 2 * len(ends)


def test_layers_choose_blocks() -> None:
    names = adapted_names(layers=(1,))
    assert len(names) == 7
    assert all(".1." in name for name in names)


def test_a_full_path_is_a_name() -> None:
    assert adapted_names(targets=("model.layers.0.self_attn.q_proj",)) == ["model.layers.0.self_attn.q_proj"]


def test_the_head_is_never_adapted() -> None:
    model = nets.llama()
    Lora(rank=2).attach(model, seed=0)
    assert isinstance(model.lm_head, nn.Linear)


@pytest.mark.parametrize(
    ("settings", "said", "fix"),
    [
        ({"targets": "qproj"}, "'qproj'", "q_proj"),
        ({"targets": ("q_proj", "vproj")}, "'vproj'", "v_proj"),
        ({"targets": ("model.layers.0.self_attn.q_prj",)}, "q_prj", "q_proj"),
        ({"targets": ("lm_head",)}, "'lm_head'", "known: down_proj"),
        ({"exclude": ("up_prj",)}, "'up_prj'", "up_proj"),
        ({"targets": ("q_proj",), "layers": (0, 7)}, "no block 7", "last one is 1"),
        ({"targets": ("q_proj",), "exclude": (r".*self_attn.*",)}, "no layer to adapt", "exclude less"),
    ],
)
def test_a_name_that_matches_nothing_is_refused_with_the_nearest_one(settings: dict[str, object], said: str, fix: str) -> None:
    with pytest.raises(HoneError) as caught:
        adapted_names(**settings)
    assert caught.value.code == "M004"
    assert said in caught.value.what
    assert fix in caught.value.fix


def test_the_head_may_be_excluded_though_it_is_never_adapted() -> None:
    assert len(adapted_names(exclude=("lm_head",))) == 2 * 7


def test_the_same_seed_gives_the_same_start() -> None:
    def start(seed: int) -> Tensor:
        model = nets.qwen3()
        Lora(rank=2).attach(model, seed=seed)
        return torch.cat([p.detach().flatten() for p in trainable(model).values()])

    assert torch.equal(start(3), start(3))
    assert not torch.equal(start(3), start(4))


def test_scale() -> None:
    assert Lora(rank=16).scale == 2
    assert Lora(rank=16, alpha=8).scale == 0.5
    assert Lora(rank=16, alpha=8, rslora=True).scale == 2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
def test_low_rank_function_equals_its_plain_twin(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    wide = torch.promote_types(dtype, torch.float32)
    weight, offset = torch.randn(6, 5, dtype=dtype), torch.randn(6, dtype=dtype) if bias else None
    x, a, b = torch.randn(2, 3, 5, dtype=dtype), torch.randn(2, 5, dtype=wide), torch.randn(6, 2, dtype=wide)
    push = torch.randn(2, 3, 6, dtype=dtype)

    def ours(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return LowRank.apply(x, weight, offset, a, b, 0.7)

    def plain(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return nn.functional.linear(x, weight, offset) + 0.7 * (x @ a.to(dtype).t()) @ b.to(dtype).t()

    found = []
    for function in (ours, plain):
        leaves = [t.clone().requires_grad_() for t in (x, a, b)]
        out = function(*leaves)
        out.backward(push)
        found.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for mine, twin in zip(*found, strict=True):
        assert mine.dtype == twin.dtype
        assert (mine - twin).norm() <= CLOSE[dtype] * twin.norm()


def test_low_rank_function_passes_gradcheck() -> None:
    torch.manual_seed(0)
    x, weight, a, b = (torch.randn(shape, dtype=torch.float64) for shape in ((3, 5), (6, 5), (2, 5), (6, 2)))
    leaves = [t.requires_grad_() for t in (x, a, b)]
    assert torch.autograd.gradcheck(lambda x, a, b: LowRank.apply(x, weight, None, a, b, 0.7), leaves)


def layer(dropout: float) -> LoraLinear:
    torch.manual_seed(0)
    base = nn.Linear(64, 8).requires_grad_(False)
    made = LoraLinear(base, start("default", base.weight, 4, 0.5, torch.Generator().manual_seed(0)), scale=0.5, dropout=dropout)
    made.b.data.normal_()
    return made


@torch.no_grad()
def test_dropout_works_on_the_adapter_alone_and_only_while_training() -> None:
    dropped, plain = layer(0.5), layer(0.0)
    x = torch.randn(3, 64)
    dropped.eval()
    assert torch.equal(dropped(x), plain(x))
    dropped.train()
    assert not torch.allclose(dropped(x), dropped(x))
    base = plain.base(x)
    many = torch.stack([dropped(x) - base for _ in range(1000)])
    assert torch.allclose(many.mean(0), plain(x) - base, atol=6 * float(many.std(0).max()) / 1000**0.5)


def test_a_change_inside_another_module_of_ours_is_folded_in_first() -> None:
    """The copy of a block that moves whole, with a LoRA in it."""
    policy = nets.policy(nets.llama, Lora(rank=2, targets=("q_proj",)))
    train_whole(policy.model, ("layers.0.self_attn",))
    for name, parameter in policy.model.named_parameters():
        if name.endswith("copy.q_proj.b"):
            parameter.data += 0.1
    before = said(policy)
    policy.tuning.merge(policy.model)
    assert not [module for module in policy.model.modules() if isinstance(module, Ours)]
    assert (said(policy) - before).abs().max() <= 1e-5


def test_weights_that_require_gradients_get_them() -> None:
    moving = layer(0.0)
    moving.base.requires_grad_(True)
    twin = copy.deepcopy(moving)
    x = torch.randn(3, 64)
    moving(x).square().sum().backward()
    (nn.functional.linear(x, twin.base.weight + twin.delta(), twin.base.bias)).square().sum().backward()
    assert torch.allclose(moving.base.weight.grad, twin.base.weight.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(moving.a.grad, twin.a.grad, rtol=1e-4, atol=1e-4)
