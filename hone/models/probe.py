"""One second of measuring: which floating-point type trains fastest on this CPU at this model's sizes."""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor

from hone.tuning.packed import product

BUDGET = 0.4
"""Seconds for each type."""
WORK = 2e9
"""Multiplications that one trial may cost, so that wide models are probed with fewer tokens."""
WIDEST = (2048, 4096)
"""Beyond these sizes the ratio between the types does not change any more."""


@cache
def cpu_seconds(dtype: torch.dtype, hidden: int, intermediate: int) -> float:
    """Seconds for one forward and backward of a gated feed-forward block with a norm; the best of several trials."""
    hidden, intermediate = min(hidden, WIDEST[0]), min(intermediate, WIDEST[1])
    tokens = int(min(512, max(32, WORK / (6 * hidden * intermediate))))
    generator = torch.Generator().manual_seed(0)
    shapes = ((tokens, hidden), (intermediate, hidden), (hidden, intermediate))
    x, up, down = (torch.randn(*shape, generator=generator).to(dtype) for shape in shapes)
    x.requires_grad_(True)
    best, started, trials = float("inf"), time.perf_counter(), 0
    while trials < 2 or (time.perf_counter() - started < BUDGET and trials < 50):
        before = time.perf_counter()
        torch.autograd.backward(_block(x, up, down).sum())
        best, trials = min(best, time.perf_counter() - before), trials + 1
    return best


def _block(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    normed = torch.nn.functional.rms_norm(x, x.shape[-1:])
    inner = torch.nn.functional.silu(product(normed, up))
    return x + product(inner, down)
