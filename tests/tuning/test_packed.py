"""Every method on a quantised base: its base stays, its gradient is that of the unpacked base, and folding unpacks first."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.data.batching import pack
from hone.models.fingerprint import fingerprint_of
from hone.models.policy import Policy
from hone.models.quantise import quantise
from hone.objectives import OBJECTIVES
from hone.plan.packed import Scheme
from hone.train.engine import Engine
from hone.train.optim import OptimSettings
from hone.tuning import METHODS, Tuning, trainable
from hone.tuning.lora import Lora
from hone.tuning.packed import packed_layers, unpack
from hone.tuning.shapes import Shapes
from hone.tuning.starts import loftq
from tests import nets
from tests.tuning.test_every_method import SMALL

pytest.importorskip("bitsandbytes", reason="4- and 8-bit weights are packed by bitsandbytes (the extra 'quant')")

BASE_MOVING = ("full", "freeze", "peft", "fusion")
WORKING = [name for name in METHODS if name not in BASE_MOVING]
BATCH = pack(nets.singles(4) + nets.pairs(1))
NF4 = Scheme("nf4", double=True)


def base(scheme: Scheme = NF4, family: str = "llama") -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = nets.MODELS[family]()
    quantise(model, scheme, place=torch.device("cpu"), dtype=torch.float32)
    return model


def attached(model: nn.Module, tuning: Tuning, *, moved: bool = True) -> Policy:
    tuning.attach(model, seed=1)
    generator = torch.Generator().manual_seed(2)
    for parameter in trainable(model).values() if moved else ():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return Policy.of(model, tuning)


def made(method: str) -> Tuning:
    tuning: Tuning = parse(METHODS[method], SMALL.get(method, {}), section="tuning")
    return tuning


def said(policy: Policy) -> Tensor:
    policy.model.eval()
    with torch.no_grad():
        return policy.signals(BATCH, "logp").logp


def numbers(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for layer in packed_layers(model).values() for buffer in layer.buffers()]


@pytest.mark.parametrize("method", WORKING)
def test_the_base_is_what_it_was_before_and_after_training(method: str) -> None:
    model = base()
    plain, before = said(attached(copy.deepcopy(model), METHODS["lora"](), moved=False)), numbers(model)
    policy = attached(model, made(method))
    engine = Engine(policy, OptimSettings(learning_rate=1e-2))
    for step in (1, 2):
        engine.begin(step, 2)
        tally = engine.forward_backward([BATCH], OBJECTIVES["sft"])
        engine.step(1e-2, engine.gradient_norm(tally))
    assert (said(policy) - plain).abs().max() > 0
    with policy.tuning.disabled(policy.model):
        assert (said(policy) - plain).abs().max() == 0, "the reference is the quantised base"
    assert all(map(torch.equal, before, numbers(model)))
    assert Shapes.of(model).parameters.keys() >= {f"{path}.weight" for path in packed_layers(model)}


@pytest.mark.parametrize("scheme", [NF4, Scheme("int8")], ids=str)
@pytest.mark.parametrize("method", [name for name in WORKING if METHODS[name].about.mergeable])
def test_the_gradient_is_that_of_the_unpacked_base_and_so_is_the_merged_model(method: str, scheme: Scheme) -> None:
    packed = base(scheme)
    opened = copy.deepcopy(packed)
    assert unpack(opened) == len(packed_layers(packed)) and not packed_layers(opened)
    ours, theirs = attached(packed, made(method)), attached(opened, made(method))
    for policy in (ours, theirs):
        policy.model.train()
        policy.signals(BATCH, "logp").logp.sum().backward()
    for (name, mine), (_, other) in zip(trainable(packed).items(), trainable(opened).items(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)
    before = said(ours)
    ours.tuning.merge(packed)
    assert not packed_layers(packed)
    assert (said(ours) - before).abs().max() < 1e-4


def test_lora_in_fp64_is_exact_through_the_packed_product() -> None:
    model = base(Scheme("nf4")).double()
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    x = torch.randn(3, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_an_adapter_comes_back_to_its_quantised_base(method: str, tmp_path: Path) -> None:
    known = {"name": "tiny", "fingerprint": "a-b", "quantised": "nf4", "double": "yes"}
    one = attached(base(), made(method))
    one.tuning.save(one.model, tmp_path, base=known)
    fresh = attached(base(), METHODS[method].from_peft(tmp_path), moved=False)
    fresh.tuning.load(fresh.model, tmp_path, base=known)
    assert (said(fresh) - said(one)).abs().max() == 0


def test_a_module_that_is_trained_whole_is_unpacked_for_it() -> None:
    policy = attached(base(), Lora(rank=2, targets=("q_proj",), train=("o_proj",)), moved=False)
    assert any(name.endswith("o_proj.copy.weight") for name in trainable(policy.model))
    assert fingerprint_of(policy.model) != fingerprint_of(base(Scheme("fp4")))


@pytest.mark.parametrize("method", ["full", "freeze"])
def test_methods_that_move_the_base_are_refused(method: str) -> None:
    with pytest.raises(HoneError, match="quantised") as fault:
        made(method).attach(base(), seed=0)
    assert fault.value.code == "M099"


def test_peft_s_own_layers_are_refused() -> None:
    with pytest.raises(HoneError, match="quantised") as fault:
        made("peft").attach(base(), seed=0)
    assert fault.value.code == "M099"


@torch.no_grad()
def errors(model: nn.Module, plain: nn.Module) -> dict[str, float]:
    """Distance of each layer's whole weight (base and change) from the weight before quantisation."""
    found = {}
    for path, layer in packed_layers(model).items():
        name = path.removesuffix(".base")
        part = model.get_submodule(name)
        change = part.delta() if name != path else 0.0  # type: ignore[operator]
        found[name] = float((plain.get_submodule(name).weight - layer.dense() - change).norm())
    return found


def test_loftq_makes_up_for_what_quantisation_lost() -> None:
    torch.manual_seed(0)
    plain = nets.llama()
    model = base()
    for path, layer in packed_layers(model).items():
        layer.original = lambda path=path: plain.get_submodule(path).weight.detach()
    before = errors(model, plain)
    policy = attached(model, Lora(rank=8, init="loftq"), moved=False)
    after = errors(policy.model, plain)
    assert all(after[path] < 0.9 * before[path] for path in before)
    one = packed_layers(policy.model)["model.layers.0.mlp.up_proj.base"]
    lost = plain.get_submodule("model.layers.0.mlp.up_proj").weight.detach() - one.dense()
    kept = policy.model.get_submodule("model.layers.0.mlp.up_proj").delta()  # type: ignore[operator]
    assert float((lost - kept).detach().norm()) == pytest.approx(float(torch.linalg.svdvals(lost)[8:].norm()), rel=1e-3), (
        "the best of this rank"
    )


def test_loftq_s_alternation_lowers_the_error_step_by_step() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 96) @ torch.diag(torch.linspace(0.2, 3, 96))
    found = []
    for steps in (1, 2, 5):
        start = loftq(weight, 16, 2.0, steps=steps)
        assert start.rounded_OI is not None
        found.append(float((weight - start.rounded_OI - 2.0 * start.b_OR @ start.a_RI).norm()))
    assert found[0] > found[1] > found[2]


def test_loftq_on_a_model_that_came_quantised_is_refused() -> None:
    with pytest.raises(HoneError, match="came quantised") as fault:
        Lora(init="loftq").attach(base(), seed=0)
    assert fault.value.code == "M042"
