"""Bottleneck adapters, their fusion, their dropping, and the two methods that are made of several parts."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.core.types import Batch
from hone.data.batching import micro_batches, pack
from hone.data.offline import Offline
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine
from hone.train.loop import train
from hone.train.optim import OptimSettings
from hone.tuning import METHODS, Tuning, trainable
from hone.tuning.adapter import AdapterDrop, Bottleneck, Houlsby, ParallelAdapter, Pfeiffer, adapted, adapters_of
from hone.tuning.base import Untouched
from hone.tuning.fusion import Fusion, fused, watching
from hone.tuning.lora import Lora, lora_layers
from hone.tuning.mam import Mam
from hone.tuning.opening import open_adapter
from hone.tuning.prefix import Prefix, keys_values_of
from hone.tuning.shapes import Shapes
from hone.tuning.unipelt import Gate, GatedAdapter, UniPelt
from tests import nets

BASE = {"name": "tiny", "fingerprint": "shape-bytes"}
GROUPS = nets.singles(4) + nets.pairs(1)
SFT = OBJECTIVES["sft"]


@torch.no_grad()
def said(policy: Policy, batch: Batch | None = None) -> Tensor:
    policy.model.eval()
    return policy.signals(batch or pack(GROUPS), "logp").logp


def shapes(hidden: int, layers: int) -> Shapes:
    """Sizes of a model with attention of full width, as BERT's."""
    linears = {f"h.{i}.attention.{name}": (hidden, hidden) for i in range(layers) for name in ("query", "key", "value")}
    unasked: dict[str, Any] = {
        "biases": {},
        "parameters": {},
        "paths": frozenset(),
        "head": "",
        "embedding": "",
        "table": (),
        "tied": False,
    }
    return Shapes(linears=linears, hidden=hidden, layers=layers, kv_width=hidden, **unasked)


def test_sizes_that_are_known_from_elsewhere() -> None:
    """A proof of concept of three blocks of width 64, and the UniPELT paper on BERT-base."""
    tiny, bert = shapes(64, 3), shapes(768, 12)
    assert Houlsby().count(tiny) == 3_480
    assert Pfeiffer().count(tiny) == 1_740
    assert ParallelAdapter().count(tiny) == 12_576
    assert Pfeiffer(size=48).count(bert) == 894_528
    assert UniPelt().prefix.count(bert) == 184_320
    assert UniPelt().low_rank_count(bert) == 294_912
    assert UniPelt(gate=False).count(bert) == 894_528 + 184_320 + 294_912
    assert UniPelt().count(bert) == UniPelt(gate=False).count(bert) + 3 * 12 * 769
    assert Mam().count(tiny) == 2 * 3 * 30 * 64 + 12_576


@pytest.mark.parametrize("tuning", [Houlsby(size=4), Pfeiffer(size=4), ParallelAdapter(size=4)], ids=["houlsby", "pfeiffer", "parallel"])
def test_an_adapter_is_where_its_paper_puts_it(tuning: Any) -> None:
    policy = nets.policy(nets.llama, tuning)
    block = policy.model.model.layers[0]
    x = torch.randn(1, 5, 32)
    inner: Any = block.mlp.base
    adapter = block.mlp.adapter
    down = torch.nn.functional.linear(x if isinstance(tuning, ParallelAdapter) else inner(x), adapter.down.weight, adapter.down.bias)
    act = torch.nn.functional.gelu if isinstance(tuning, Houlsby) else torch.relu
    change = torch.nn.functional.linear(act(down), adapter.up.weight, adapter.up.bias)
    expected = inner(x) + (4.0 if isinstance(tuning, ParallelAdapter) else 1.0) * change
    assert torch.allclose(block.mlp(x), expected, atol=1e-6)
    assert len(adapted(policy.model)) == (4 if isinstance(tuning, Houlsby) else 2)
    assert hasattr(block.self_attn, "adapter") == isinstance(tuning, Houlsby)


def test_houlsby_moves_the_norms_of_its_blocks() -> None:
    moving = trainable(nets.policy(nets.llama, Houlsby(size=4)).model)
    norms = {name for name in moving if "adapter" not in name}
    both = ("input_layernorm", "post_attention_layernorm")
    assert norms == {f"model.layers.{i}.{name}.copy.weight" for i in range(2) for name in both}
    assert not [name for name in trainable(nets.policy(nets.gpt2, Houlsby(size=4, norms=False)).model) if "adapter" not in name]


def hidden_needs_gradient(policy: Policy) -> list[bool]:
    """Whether autograd recorded anything up to the output of each block."""
    found: list[bool] = []
    handles = [
        block.register_forward_hook(lambda _, __, out: found.append((out[0] if isinstance(out, tuple) else out).requires_grad))
        for block in policy.model.model.layers
    ]
    policy.signals(pack(GROUPS), "logp").logp.sum().backward()
    for handle in handles:
        handle.remove()
    return found


def test_nothing_is_recorded_below_the_first_adapter() -> None:
    assert hidden_needs_gradient(nets.policy(nets.llama, AdapterDrop(size=4, skip=1))) == [False, True]
    policy = nets.policy(nets.llama, AdapterDrop(size=4))
    policy.model.train()
    assert hidden_needs_gradient(policy) == [True, True]
    adapted(policy.model)[0].dropped = True
    assert hidden_needs_gradient(policy) == [False, True]
    with pytest.raises(HoneError, match="M004"):
        nets.policy(nets.llama, AdapterDrop(skip=2))


def test_the_depth_is_drawn_for_each_step_and_all_adapters_answer() -> None:
    policy = nets.policy(nets.llama, AdapterDrop(size=4))
    full = said(policy)
    depths = set()
    for step in range(20):
        torch.manual_seed(step)
        policy.tuning.begin(policy.model, step=step, total=20)
        depths.add(tuple(layer.dropped for layer in adapted(policy.model)))
    assert depths == {(False, False), (True, False)}
    assert torch.equal(said(policy), full)


def test_adapters_trained_whole_can_be_opened_without_the_first(tmp_path: Path) -> None:
    policy = nets.policy(nets.llama, AdapterDrop(size=4))
    policy.tuning.save(policy.model, tmp_path, base=BASE)
    fewer = nets.policy(nets.llama, AdapterDrop(size=4, skip=1), moved=False)
    fewer.tuning.load(fewer.model, tmp_path, base=BASE)
    adapted(policy.model)[0].active = False
    assert torch.equal(said(fewer), said(policy))


def saved_adapters(folder: Path, count: int, family: str = "llama") -> tuple[str, ...]:
    """Pfeiffer adapters with random contents."""
    for i in range(count):
        policy = nets.policy(nets.MODELS[family], Pfeiffer(size=3 + i))
        for parameter in trainable(policy.model).values():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))
        policy.tuning.save(policy.model, folder / str(i), base=BASE)
    return tuple(str(folder / str(i)) for i in range(count))


def hashes(model: nn.Module, *, moving: bool) -> dict[str, str]:
    named = ((name, p) for name, p in model.named_parameters() if p.requires_grad == moving)
    return {name: hashlib.sha256(p.detach().numpy().tobytes()).hexdigest() for name, p in named}


def test_fusion_of_one_adapter_starts_as_that_adapter(tmp_path: Path) -> None:
    alone = nets.policy(nets.llama, Pfeiffer(size=3), moved=False)
    saved_adapters(tmp_path, 1)
    run = (tmp_path / "0").rename(tmp_path / "adapter").parent
    alone.tuning.load(alone.model, run / "adapter", base=BASE)
    both = nets.policy(nets.llama, Fusion(adapters=(str(run),)), moved=False)
    assert (said(both) - said(alone)).abs().max() <= 1e-6
    assert all(torch.equal(layer.value, torch.eye(32)) for layer in fused(both.model).values())


def test_fusion_trains_its_mixture_and_leaves_base_and_adapters_alone(tmp_path: Path) -> None:
    policy = nets.policy(nets.llama, Fusion(adapters=saved_adapters(tmp_path, 3)), moved=False)
    still, moving = hashes(policy.model, moving=False), hashes(policy.model, moving=True)
    assert sum("adapters" in name for name in still) == 2 * 3 * 4
    assert sum(p.numel() for p in trainable(policy.model).values()) == policy.tuning.count(Shapes.of(policy.model)) == 3 * 2 * 32**2
    source = Offline(nets.singles(), step_groups=5, budget=80, epochs=1.0, max_steps=None, seed=0, shuffle=True)
    train(Engine(policy, OptimSettings(learning_rate=1e-2)), source, SFT)
    assert hashes(policy.model, moving=False) == still
    assert not hashes(policy.model, moving=True).items() & moving.items()
    with watching(policy.model) as places:
        said(policy)
        for layer in places.values():
            assert layer.shares_TN is not None
            assert layer.shares_TN.shape == (len(pack(GROUPS).tokens_T), 3)
            assert torch.allclose(layer.shares_TN.sum(-1), torch.ones(len(layer.shares_TN)))
    assert all(layer.shares_TN is None for layer in fused(policy.model).values())


def test_fusion_ends_with_the_adapters_that_were_listened_to_most(tmp_path: Path) -> None:
    folders = saved_adapters(tmp_path, 3)
    policy = nets.policy(nets.llama, Fusion(adapters=folders, keep=1), moved=False)
    source = Offline(nets.singles(), step_groups=5, budget=80, epochs=1.0, max_steps=None, seed=0, shuffle=True)
    train(Engine(policy, OptimSettings(learning_rate=1e-2)), source, SFT)
    for layer in fused(policy.model).values():
        assert layer.left() == [int(layer.get_buffer("heard_N").argmax())]
        assert layer.get_buffer("heard_N").sum() > sum(len(group[0].tokens) for group in nets.singles()) - 1
    with watching(policy.model) as places:
        pruned = said(policy)
        assert all(layer.shares_TN is not None and layer.shares_TN.shape[1] == 1 for layer in places.values())
    policy.tuning.save(policy.model, tmp_path / "fusion", base=BASE)
    opened = open_adapter(tmp_path / "fusion").tuning
    again = nets.policy(nets.llama, opened, moved=False)
    opened.load(again.model, tmp_path / "fusion", base=BASE)
    assert torch.equal(said(again), pruned)
    with pytest.raises(HoneError, match="M063"):
        nets.policy(nets.llama, Fusion(adapters=folders, keep=3))


def test_a_fusion_can_be_moved_to_another_place(tmp_path: Path) -> None:
    policy = nets.policy(nets.llama, Fusion(adapters=saved_adapters(tmp_path / "old", 2)))
    policy.tuning.save(policy.model, tmp_path / "fusion", base=BASE)
    shutil.rmtree(tmp_path / "old")
    moved = shutil.move(tmp_path / "fusion", tmp_path / "elsewhere")
    opened = open_adapter(Path(moved)).tuning
    again = nets.policy(nets.llama, opened, moved=False)
    opened.load(again.model, Path(moved), base=BASE)
    assert torch.equal(said(again), said(policy))


def test_the_penalty_of_fusion_holds_v_at_the_identity(tmp_path: Path) -> None:
    policy = nets.policy(nets.llama, Fusion(adapters=saved_adapters(tmp_path, 2)), moved=False)
    assert policy.tuning.penalty(policy.model) == 0
    for layer in fused(policy.model).values():
        layer.value.data += 1.0
    assert torch.isclose(policy.tuning.penalty(policy.model), torch.tensor(0.01 * 2 * 32**2))
    assert Fusion(adapters=("x",), regularise=0).penalty(policy.model) is None


def test_fusion_refuses_what_it_cannot_mix(tmp_path: Path) -> None:
    policy = nets.policy(nets.llama, Houlsby(size=3))
    policy.tuning.save(policy.model, tmp_path / "h", base=BASE)
    with pytest.raises(HoneError, match="M063"):
        nets.policy(nets.llama, Fusion(adapters=(str(tmp_path / "h"),)))
    other = saved_adapters(tmp_path, 1, "gpt2")
    with pytest.raises(HoneError, match="M063"):
        nets.policy(nets.llama, Fusion(adapters=other))


def test_mam_without_one_half_is_the_other() -> None:
    policy = nets.policy(nets.llama, Mam(length=4, size=6))
    prefix = nets.policy(nets.llama, Prefix(length=4))
    keys_values_of(prefix.model).load_state_dict(keys_values_of(policy.model).state_dict())
    beside = nets.policy(nets.llama, ParallelAdapter(size=6))
    for mine, theirs in zip(adapters_of(beside.model), adapters_of(policy.model), strict=True):
        mine.load_state_dict(theirs.state_dict())
    policy.model.prologue.active = False
    assert torch.equal(said(policy), said(beside))
    policy.model.prologue.active = True
    for layer in adapted(policy.model):
        layer.active = False
    assert torch.equal(said(policy), said(prefix))


def forced(gates: tuple[float, float, float], family: str) -> Policy:
    """A UniPELT whose gates on adapter, LoRA and prefix are wide open (1) or shut (0)."""
    policy = nets.policy(nets.MODELS[family], UniPelt(length=4, size=6, rank=3))
    order = iter([*gates] * 2)
    found = [module for module in policy.model.modules() if isinstance(module, Gate)]
    assert len(found) == 6
    for block in policy.model.base_model.layers if family == "llama" else policy.model.base_model.h:
        attention, forward = (block.self_attn, block.mlp) if family == "llama" else (block.attn, block.mlp)
        low = next(module for module in attention.base.modules() if isinstance(module, GatedAdapter))
        for gate in (forward.gate, low.gate, attention.gate):
            gate.weight.data.zero_()
            gate.bias.data.fill_(1e4 if next(order) else -1e4)
    return policy


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_unipelts_gates_forced_open_or_shut_give_the_single_methods(family: str) -> None:
    make = nets.MODELS[family]
    torch.testing.assert_close(said(forced((0, 0, 0), family)), said(nets.policy(make, Untouched())), rtol=0, atol=1e-6)
    whole = forced((1, 0, 0), family)
    alone = nets.policy(make, Pfeiffer(size=6))
    mine = [m.adapter for m in whole.model.modules() if isinstance(m, GatedAdapter) and not m.own_input]
    for target, source in zip(adapters_of(alone.model), mine, strict=True):
        target.load_state_dict(source.state_dict())
    torch.testing.assert_close(said(whole), said(alone), rtol=0, atol=1e-6)

    whole = forced((0, 1, 0), family)
    alone = nets.policy(make, Lora(rank=3, alpha=16, targets=("q_proj", "v_proj") if family == "llama" else ("c_attn",)))
    low = {name: m.adapter for name, m in whole.model.named_modules() if isinstance(m, GatedAdapter) and m.own_input}
    for (_, layer), source in zip(sorted(lora_layers(alone.model).items()), (low[name] for name in sorted(low)), strict=True):
        layer.a.data.copy_(source.down.weight)
        layer.b.data.copy_(source.up.weight)
    torch.testing.assert_close(said(whole), said(alone), rtol=0, atol=1e-6)

    whole = forced((0, 0, 1), family)
    alone = nets.policy(make, Prefix(length=4))
    prologue = keys_values_of(alone.model)
    prologue.positions = 0
    prologue.load_state_dict(keys_values_of(whole.model).state_dict())
    torch.testing.assert_close(said(whole), said(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", nets.MODELS)
@pytest.mark.parametrize("method", ["unipelt", "mam", "fusion"])
def test_no_token_looks_ahead(method: str, family: str, tmp_path: Path) -> None:
    """The last token changes nothing before it, not in the last bit, and gates lie strictly between 0 and 1."""
    options: dict[str, dict[str, Any]] = {
        "unipelt": {"length": 4, "size": 6, "rank": 3},
        "mam": {"length": 4, "size": 6},
        "fusion": {"adapters": saved_adapters(tmp_path, 2, family)} if method == "fusion" else {},
    }
    tuning: Tuning = METHODS[method](**options[method])
    policy = nets.policy(nets.MODELS[family], tuning)
    tokens = [5, 9, 70, 33, 21, 8, 90, 14, 3, 66]
    shares: list[Tensor] = []
    handles = [m.register_forward_hook(lambda _, __, out: shares.append(out)) for m in policy.model.modules() if isinstance(m, Gate)]
    for packed in (True, False):
        policy.packed = packed
        both = [said(policy, pack([(nets.Sequence([*tokens[:-1], last], [1.0] * 10),)])) for last in (66, 101)]
        assert (both[0][:-1] - both[1][:-1]).abs().max() == 0
        assert both[0][-1] != both[1][-1]
    for handle in handles:
        handle.remove()
    assert all(((share > 0) & (share < 1)).all() for share in shares)
    assert bool(shares) == (method == "unipelt")


def test_gates_learn_and_can_be_left_out() -> None:
    engine = Engine(nets.policy(nets.llama, UniPelt(length=4, size=6, rank=3), torch.float64), OptimSettings(learning_rate=1e-3))
    engine.forward_backward(micro_batches(GROUPS, 10**9), SFT)
    gates = [p.grad for name, p in trainable(engine.policy.model).items() if ".gate." in name]
    assert len(gates) == 2 * 2 * 3
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gates)
    without = nets.policy(nets.llama, UniPelt(length=4, size=6, rank=3, gate=False))
    assert not [name for name in trainable(without.model) if ".gate" in name]


def test_a_bottleneck_without_nonlinearity_is_loras_product() -> None:
    low = Bottleneck(5, 2, 7, activation=None, scale=0.5, bias=False).start(torch.zeros(1), torch.Generator().manual_seed(0))
    low.up.weight.data.normal_()
    x = torch.randn(3, 5)
    assert torch.allclose(low(x), 0.5 * x @ low.down.weight.t() @ low.up.weight.t(), atol=1e-6)
