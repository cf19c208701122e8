"""LoRA on the experts of a mixture, whose weights lie stacked in one tensor for all of them and in no linear layer.

Every expert has its own A and B. They are kept as peft keeps those of its `target_parameters`: all experts' A under each other, and
the B of rank r of all experts side by side.

Shape legend: T tokens, K experts of a token, S chosen pairs of token and expert, E experts, D hidden size, I input features,
O output features, R rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hone.tuning.base import Beside, replace
from hone.tuning.lowrank import LowRank
from hone.tuning.shapes import stacks_of
from hone.tuning.starts import Kind, start

INNER = ".base_layer"
"""How peft's paths say that one changed parameter of a module lies inside another."""


class Change(nn.Module):
    """The low-rank change of one stacked weight, in fp32 and cast where used: `a` (E R, I), `b` (O, R E)."""

    def __init__(self, stack_EOI: Tensor, rank: int, scale: float, init: Kind, generator: torch.Generator) -> None:
        super().__init__()
        self.experts, outputs, inputs = stack_EOI.shape
        self.rank, self.scale = rank, scale
        empty = torch.empty(outputs, inputs, dtype=stack_EOI.dtype, device=stack_EOI.device)
        halves = [start(init, empty, rank, scale, generator) for _ in range(self.experts)]
        self.a = nn.Parameter(torch.cat([half.a_RI for half in halves]))
        self.b = nn.Parameter(torch.cat([half.b_OR for half in halves], 1))

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """A (R, I) and B (O, R) of each expert."""
        return zip(self.a.view(self.experts, self.rank, -1).unbind(0), self.b.view(-1, self.rank, self.experts).unbind(-1), strict=True)

    def delta(self) -> Tensor:
        """The change (E, O, I), in fp32."""
        a_ERI, b_ORE = self.a.view(self.experts, self.rank, -1), self.b.view(-1, self.rank, self.experts)
        return self.scale * torch.einsum("ore,eri->eoi", b_ORE, a_ERI)


class LoraExperts(Beside):
    """Frozen experts, each computed for the tokens that chose it, beside the changes of their stacked weights by name."""

    def __init__(self, base: nn.Module, changes: Mapping[str, Change]) -> None:
        super().__init__(base)
        self.changes = nn.ModuleDict(changes)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Any:
        if not self.active:
            return self.base(hidden_states, top_k_index, top_k_weights)
        base, chosen = self.base, top_k_index.shape[-1]
        first = "gate_up_proj" if base.has_gate else "up_proj"
        expert_S = top_k_index.reshape(-1)
        order_S = expert_S.argsort(stable=True)
        x_SD = hidden_states[order_S // chosen]
        sizes = torch.bincount(expert_S, minlength=len(stacks_of(base)[first])).tolist()
        inner = self._stage(first, x_SD.split(sizes))
        acted = [base._apply_gate(x) if base.has_gate else base.act_fn(x) for x in inner]  # type: ignore[operator]
        said_SD = torch.cat(self._stage("down_proj", acted))
        if base.has_post_expert_norm:
            said_SD = base.post_expert_norm(said_SD)  # type: ignore[operator]
        said_SD = said_SD * top_k_weights.reshape(-1)[order_S, None]
        own_S = torch.empty_like(order_S).scatter_(0, order_S, torch.arange(len(order_S), device=order_S.device))
        return said_SD[own_S].view(*top_k_index.shape, -1).sum(-2).to(hidden_states.dtype)

    def _stage(self, name: str, inputs: Iterable[Tensor]) -> list[Tensor]:
        """One of an expert's two products, of every expert with its own tokens."""
        stack_EOI = stacks_of(self.base)[name]
        bias_EO: Any = self.base.get_parameter(f"{name}_bias") if self.base.has_bias else [None] * len(stack_EOI)
        known = dict(self.changes.named_children()).get(name)
        if known is None:
            return [nn.functional.linear(x, weight, bias) for x, weight, bias in zip(inputs, stack_EOI, bias_EO, strict=True)]
        assert isinstance(known, Change)
        together = zip(inputs, stack_EOI, bias_EO, known.pairs(), strict=True)
        return [LowRank.apply(x, weight, bias, a, b, known.scale) for x, weight, bias, (a, b) in together]

    def merged(self) -> nn.Module:
        """The experts with the changes folded in, added in fp32 and rounded once."""
        stacks = stacks_of(self.base)
        for name, change in self.changes.items():
            assert isinstance(change, Change)
            stacks[name].copy_((stacks[name].to(change.a.dtype) + change.delta()).to(stacks[name].dtype))
        return self.base


def add_changes(model: nn.Module, wanted: Mapping[str, tuple[int, float]], init: Kind, generator: torch.Generator) -> None:
    """Put changes beside the stacked weights at these paths, each of a rank and a scale."""

    def make(path: str, experts: nn.Module) -> nn.Module:
        chosen = {name: wanted[f"{path}.{name}"] for name in stacks_of(experts) if f"{path}.{name}" in wanted}
        return LoraExperts(experts, {name: Change(stacks_of(experts)[name], *each, init, generator) for name, each in chosen.items()})

    modules = {path.rpartition(".")[0] for path in wanted}
    for _ in replace(model, lambda path, _: path in modules, make):
        pass


def changes_of(model: nn.Module) -> dict[str, Change]:
    """Path of every stacked weight that has a change -> the change."""
    found = {path: module for path, module in model.named_modules() if isinstance(module, LoraExperts)}
    return {
        f"{path}.{name}": change for path, module in found.items() for name, change in module.changes.items() if isinstance(change, Change)
    }


def expert_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The matrices under peft's names: of several changes of one module, the last encloses the others."""
    found: dict[str, Tensor] = {}
    for path, module in ((path, module) for path, module in model.named_modules() if isinstance(module, LoraExperts)):
        changes = [change for change in module.changes.values() if isinstance(change, Change)]
        for depth, change in enumerate(reversed(changes)):
            found |= {f"{path}{INNER * depth}.lora_{half.upper()}.weight": change.get_parameter(half).data for half in "ab"}
    return found


def is_of_expert(path: str, parameters: Iterable[str]) -> bool:
    """Whether a pair in peft's file is the change of one of these parameters (`target_parameters`), and not of a linear layer."""
    module = path
    while module.endswith(INNER):
        module = module.removesuffix(INNER)
    around = [name.rpartition(".")[0] or "experts" for name in parameters]
    return any(module == each or module.endswith(f".{each}") for each in around)
