"""How far the weights go in a step, read from a fixed sample of them so that it costs next to nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hone.train.engine import Engine
from hone.train.loop import BaseHook, State

SAMPLED = 65_536
"""Weights that are watched, spread evenly over all that move."""


class Movement(BaseHook):
    """Adds `update_ratio` to the numbers of a step: the length of the step over that of the weights, on the sample."""

    def __init__(self) -> None:
        self.before = torch.zeros(0)

    def started(self, state: State) -> None:
        self.before = sample(state.engine)

    def stepped(self, state: State) -> None:
        now = sample(state.engine)
        size = float(now.norm())
        state.metrics["update_ratio"] = float((now - self.before).norm()) / size if size else 0.0
        self.before = now


@torch.no_grad()
def sample(engine: Engine) -> Tensor:
    """A copy of every n-th weight that moves, n such that about SAMPLED are read; the same ones each time."""
    masters = [master.detach().reshape(-1) for master in engine.masters]
    every = max(1, math.ceil(sum(len(master) for master in masters) / SAMPLED))
    return torch.cat([master[::every].float() for master in masters]) if masters else torch.zeros(0)
