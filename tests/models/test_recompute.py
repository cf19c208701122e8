"""Blocks that are computed again give the same gradient to the last bit, for every family and layout, and only while training."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from hone.core.errors import HoneError
from hone.data.batching import micro_batches
from hone.models.recompute import recompute_blocks, recomputes
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine
from hone.train.settings import OptimSettings
from hone.tuning import METHODS
from tests import nets

SFT = OBJECTIVES["sft"]


def gradients(family: str, method: str, *, again: bool, packed: bool = True) -> tuple[list[torch.Tensor], int]:
    """Gradients of one step, and how many tensors the forward left for the backward."""
    policy = nets.policy(nets.MODELS[family], METHODS[method]())
    policy.packed = packed
    policy.model.train()
    recompute_blocks(policy.model, again)
    engine = Engine(policy, OptimSettings(learning_rate=1e-3))
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    groups = nets.singles(6)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        SFT(policy.signals(micro_batches(groups, 10**9)[0], SFT.needs))
    engine.forward_backward(micro_batches(groups, 100), SFT)
    return engine.masters.gradients(), sum(kept)


@pytest.mark.parametrize("family", nets.MODELS)
@pytest.mark.parametrize(("method", "packed"), [("lora", True), ("lora", False), ("full", True)])
def test_the_gradient_is_the_same_and_less_is_kept(family: str, method: str, packed: bool) -> None:
    plain, kept = gradients(family, method, again=False, packed=packed)
    again, less = gradients(family, method, again=True, packed=packed)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert less < kept / 2


def test_it_can_be_switched_off_again() -> None:
    model = nets.llama()
    recompute_blocks(model, True)
    assert recomputes(model)
    recompute_blocks(model, False)
    assert not recomputes(model)


def test_an_architecture_that_cannot_is_refused() -> None:
    class Rigid(LlamaForCausalLM):
        supports_gradient_checkpointing = False

    rigid = Rigid(nets.llama().config)
    recompute_blocks(rigid, False)
    with pytest.raises(HoneError) as caught:
        recompute_blocks(rigid, True)
    assert caught.value.code == "M090"
