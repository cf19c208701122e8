"""Puts fused modules into one model instance, wherever a trial shows that they compute what the old ones did."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hone.models.kernels.norm import FusedRmsNorm
from hone.models.kernels.swiglu import FusedGatedMlp
from hone.tuning.packed import Packed, like


@torch.no_grad()
def fuse(model: nn.Module) -> int:
    """Replace RMS norms and gated MLPs of this instance; returns how many. Run it before adapters are attached.

    A module is chosen by its parts and then tried on random input: what differs from the original by more than
    rounding (another activation, an offset weight) stays as it was.
    """
    replaced = 0
    for name, module in list(model.named_modules()):
        candidate = _norm(module) or _mlp(module)
        if candidate is None or not _same(module, candidate):
            continue
        parent, _, leaf = name.rpartition(".")
        candidate.train(module.training)
        setattr(model.get_submodule(parent), leaf, candidate)
        replaced += 1
    return replaced


def _norm(module: nn.Module) -> nn.Module | None:
    fields = vars(module)
    own = list(module.named_parameters())
    if len(own) != 1 or own[0][0] != "weight" or own[0][1].dim() != 1 or "variance_epsilon" not in fields:
        return None
    weight = own[0][1]
    return FusedRmsNorm(weight, float(fields["variance_epsilon"]))


def _mlp(module: nn.Module) -> nn.Module | None:
    children = dict(module.named_children())
    parts = [children.get(name) for name in ("gate_proj", "up_proj", "down_proj")]
    fit = all(type(part) is nn.Linear or isinstance(part, Packed) for part in parts)
    if not fit or not children.keys() <= {"gate_proj", "up_proj", "down_proj", "act_fn"}:
        return None
    gate, up, down = parts
    assert gate is not None and up is not None and down is not None
    return FusedGatedMlp(gate, up, down)


def _same(old: nn.Module, new: nn.Module) -> bool:
    first = next(iter(new.children()), new)
    near, width = like(first), first.in_features if isinstance(first, nn.Linear) else next(first.parameters()).shape[-1]
    if near["device"].type == "meta" or not near["dtype"].is_floating_point:
        return False
    generator = torch.Generator().manual_seed(0)
    x: Tensor = torch.randn(1, 4, width, generator=generator).to(**near)
    before, after = old(x).float(), new(x).float()
    tolerance = 1e-5 if torch.finfo(near["dtype"]).bits >= 32 else 3e-2
    return bool((before - after).norm() <= tolerance * before.norm())
