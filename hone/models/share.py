"""A second tree of modules over the same tensors: several adapters on one base that is in memory once."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def sharing(model: M) -> M:
    """A model whose modules and configuration are new, and whose weights are those of `model`: adapters go into one of the two only."""
    kept = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, dict(kept))


def part(model: nn.Module, shared: Iterable[nn.Parameter]) -> None:
    """Give `model` tensors of its own in the place of shared ones that are not frozen in it: its adapter is about to write into them."""
    theirs = {id(parameter) for parameter in shared}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.requires_grad and id(parameter) in theirs:
                module.register_parameter(name, nn.Parameter(parameter.detach().clone()))
