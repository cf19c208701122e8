"""What a tuning method may do around a step: its own rates, a penalty once a step, a look before and after, and state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hone.core.config import settings
from hone.data.batching import micro_batches
from hone.data.offline import Offline
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine
from hone.train.loop import train
from hone.train.optim import OptimSettings
from hone.tuning.lora import Lora, lora_layers
from tests import nets

SFT = OBJECTIVES["sft"]


@settings
class Watchful(Lora):
    """LoRA whose B moves four times as fast, with a pull on A, that counts its steps in the model."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        super().attach(model, seed=seed)
        model.register_buffer("seen", torch.zeros(3), persistent=False)

    def rate(self, name: str) -> float:
        return 4.0 if name.endswith(".b") else 1.0

    def begin(self, model: nn.Module, *, step: int, total: int) -> None:
        model.get_buffer("seen")[:2] = torch.tensor([step, total])

    def penalty(self, model: nn.Module) -> Tensor:
        return torch.stack([layer.a.square().sum() for layer in lora_layers(model).values()]).sum()

    def stepped(self, model: nn.Module, *, step: int, total: int) -> None:
        assert all(layer.a.grad is not None for layer in lora_layers(model).values())
        model.get_buffer("seen")[2] += step

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        return {"seen": model.get_buffer("seen")}


def engine(tuning: Lora) -> Engine:
    return Engine(nets.policy(nets.qwen3, tuning, torch.float64), OptimSettings(learning_rate=1e-3))


def gradient(one: Engine, budget: int) -> dict[str, Tensor]:
    tally = one.forward_backward(micro_batches(nets.singles(), budget), SFT)
    one.gradient_norm(tally)
    found = {name: master.grad.clone() for name, master in zip(one.names, one.masters, strict=True)}
    one.forget()
    return found


def test_a_penalty_is_added_once_a_step_however_many_micro_batches() -> None:
    plain, whole, parts = (
        gradient(engine(Lora(rank=2)), 10**9),
        gradient(engine(Watchful(rank=2)), 10**9),
        gradient(engine(Watchful(rank=2)), 60),
    )
    layers = lora_layers(engine(Watchful(rank=2)).policy.model)
    for name in whole:
        assert (whole[name] - parts[name]).norm() <= 1e-10 * whole[name].norm()
        pull = 2 * layers[name[:-2]].a if name.endswith(".a") else 0.0
        assert torch.allclose(whole[name], plain[name] + pull, rtol=1e-10, atol=1e-12)


def test_a_penalty_is_reported_beside_the_loss() -> None:
    plain, pulled = engine(Lora(rank=2)), engine(Watchful(rank=2))
    means = [one.forward_backward(micro_batches(nets.singles(), 60), SFT).means() for one in (plain, pulled)]
    assert means[0]["loss"] == means[1]["loss"]
    assert "penalty" not in means[0]
    assert abs(means[1]["penalty"] - Watchful(rank=2).penalty(pulled.policy.model).item()) < 1e-9


def test_parameters_have_their_own_rates() -> None:
    one = engine(Watchful(rank=2))
    before = {name: parameter.detach().clone() for name, parameter in zip(one.names, one.masters, strict=True)}
    one.step(1e-3, one.gradient_norm(one.forward_backward(micro_batches(nets.singles(), 60), SFT)))
    for name, parameter in zip(one.names, one.masters, strict=True):
        moved = (parameter - before[name]).abs().max()  # AdamW's first step is the rate, in each direction
        assert torch.isclose(moved, torch.tensor(4e-3 if name.endswith(".b") else 1e-3, dtype=torch.float64), rtol=1e-3)


def test_a_method_sees_every_step_and_its_state_is_resumed() -> None:
    whole, resumed = engine(Watchful(rank=2)), engine(Watchful(rank=2))
    source = Offline(nets.singles(), step_groups=5, budget=60, epochs=2.0, max_steps=None, seed=0, shuffle=True)
    train(whole, source, SFT)
    assert whole.policy.model.get_buffer("seen").tolist() == [4, 4, 10]
    resumed.load({name: tensor.clone() for name, tensor in whole.save().items()})
    assert resumed.policy.model.get_buffer("seen").tolist() == [4, 4, 10]
