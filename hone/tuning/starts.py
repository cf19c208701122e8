"""Where low-rank matrices start: as no change at all, or from the weight itself (PiSSA, OLoRA, LoftQ).

PiSSA and OLoRA train the strongest part of a weight. Here that part is not taken out of the base: the adapter is the
difference to its own start, which has the same gradient and leaves every base weight as it was.

Shape legend: I input features, O output features, R rank, N blocks, B block size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.tuning.packed import Packed

Kind = Literal["default", "gaussian", "pissa", "olora", "loftq"]
READING = ("pissa", "olora", "loftq")
"""Those that read the weight itself."""
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen values of NF4 (arXiv 2305.14314)."""
BLOCK = 64


class Start(NamedTuple):
    """A and B at the start. `minus` are frozen copies whose product is subtracted; `rounded` is a new base weight."""

    a_RI: Tensor
    b_OR: Tensor
    minus: bool = False
    rounded_OI: Tensor | None = None


def start(kind: Kind, weight_OI: Tensor, rank: int, scale: float, generator: torch.Generator) -> Start:
    """Starting matrices in at least fp32. Raises M042 where the weight is too small for the rank, or is quantised already."""
    outputs, inputs = weight_OI.shape
    dtype = torch.promote_types(weight_OI.dtype, torch.float32)
    if kind in ("default", "gaussian"):
        bound = 1 / math.sqrt(inputs)  # kaiming_uniform with a = sqrt(5), as the reference implementation
        empty = torch.empty(rank, inputs)
        a = empty.uniform_(-bound, bound, generator=generator) if kind == "default" else empty.normal_(0, 1 / rank, generator=generator)
        return Start(a.to(weight_OI.device, dtype), torch.zeros(outputs, rank, device=weight_OI.device, dtype=dtype))
    if not weight_OI.is_floating_point() or rank > min(outputs, inputs):
        why = f"rank {rank} is more than its smaller side" if weight_OI.is_floating_point() else "it is quantised already"
        what = f"tuning.init={kind} reads a weight of {outputs} x {inputs}, but {why}"
        raise HoneError("M042", what, where="tuning.init", fix="use tuning.init=default, a smaller rank, or the 16-bit base")
    wide = weight_OI.to(dtype)
    if kind == "loftq":
        return loftq(wide, rank, scale)
    return _pissa(wide, rank, scale) if kind == "pissa" else _olora(wide, rank)


def _pissa(weight_OI: Tensor, rank: int, scale: float) -> Start:
    """The largest singular values and their vectors, shared out evenly (arXiv 2404.02948)."""
    return Start(*_factors(weight_OI, rank, scale), minus=True)


def _olora(weight_OI: Tensor, rank: int) -> Start:
    """The first columns of an orthonormal basis (arXiv 2406.01775)."""
    q, r = torch.linalg.qr(weight_OI)
    return Start(r[:rank].contiguous(), q[:, :rank].contiguous(), minus=True)


def loftq(weight_OI: Tensor, rank: int, scale: float, *, quantise: Callable[[Tensor], Tensor] | None = None, steps: int = 1) -> Start:
    """A and B that hold what rounding the weight loses (arXiv 2310.08659).

    `quantise` rounds a weight and gives back its values (None: NF4). With one step the rounded base is exactly the base
    that a 4-bit load gives, so the adapter fits it; more steps round what the adapter leaves.
    """
    rounded = torch.zeros_like(weight_OI)
    a_RI, b_OR = weight_OI.new_zeros(rank, weight_OI.shape[1]), weight_OI.new_zeros(weight_OI.shape[0], rank)
    for _ in range(steps):
        rounded = (quantise or nf4)(weight_OI - scale * b_OR @ a_RI)
        a_RI, b_OR = _factors(weight_OI - rounded, rank, scale)
    return Start(a_RI, b_OR, rounded_OI=rounded)


def making_up(layer: Packed, rank: int, scale: float) -> Start:
    """A and B that hold what the packing of a layer has lost; its weight is read once more from where it came from.

    Raises M042 where it came packed, so that nobody knows what was lost.
    """
    if layer.original is None or rank > min(layer.in_features, layer.out_features):
        what = "tuning.init=loftq makes up for what quantisation loses, but " + (
            "this model came quantised, and its 16-bit weights are not here" if layer.original is None else f"rank {rank} is too large"
        )
        raise HoneError("M042", what, where="tuning.init", fix="use tuning.init=default, or start from the 16-bit model")
    dtype = torch.promote_types(layer.dtype, torch.float32)
    found = loftq(layer.original().to(layer.device, dtype), rank, scale, quantise=lambda _: layer.dense(dtype))
    return found._replace(rounded_OI=None)


def _factors(matrix_OI: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A and B whose product, times the scale, is the best approximation of this rank."""
    u, s, v = torch.linalg.svd(matrix_OI, full_matrices=False)
    root = (s[:rank] / scale).sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


def nf4(weight: Tensor) -> Tensor:
    """A weight rounded to NF4 in blocks of 64 values, each with its own largest value, and back."""
    flat = weight.flatten()
    short = -flat.numel() % BLOCK
    blocks_NB = torch.nn.functional.pad(flat, (0, short)).view(-1, BLOCK)
    largest_N1 = blocks_NB.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    table = torch.tensor(NF4, dtype=weight.dtype, device=weight.device)
    middles = (table[1:] + table[:-1]) / 2
    values = table[torch.bucketize(blocks_NB / largest_N1, middles)] * largest_N1
    return values.flatten()[: flat.numel()].view_as(weight)
