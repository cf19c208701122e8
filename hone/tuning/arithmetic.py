"""The type in which matrices are multiplied: fp32 for bf16 on processors that can only store it.

Without AVX512-BF16 or AMX, an x86 processor takes ten to a hundred times as long for a product in bf16 as for one in fp32. There,
operands are widened for the moment of the product, which is also the more exact, and the result is rounded once.

Shape legend: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from torch import Tensor

PIECE = 1 << 20
"""Elements of a large matrix that are widened at a time: they stay in the cache until they are multiplied."""


@cache
def stores_only() -> bool:
    """Whether bf16 is only a way to store numbers on this processor."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and not torch.cpu._is_avx512_bf16_supported()


def working(near: Tensor) -> torch.dtype:
    """The type in which products with this tensor are computed."""
    lacking = near.dtype is torch.bfloat16 and near.device.type == "cpu" and stores_only()
    return torch.float32 if lacking else near.dtype


def times(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x W' + bias (N, O) in the type of x; a narrower weight is widened piece by piece, unless autograd is watching."""
    bias_O = None if bias_O is None else bias_O.to(x_NI.dtype)
    if x_NI.dtype == weight_OI.dtype or torch.is_grad_enabled():
        return torch.nn.functional.linear(x_NI, weight_OI.to(x_NI.dtype), bias_O)
    out_NO = x_NI.new_empty(len(x_NI), len(weight_OI))
    for rows in _pieces(weight_OI):
        torch.mm(x_NI, weight_OI[rows].to(x_NI.dtype).t(), out=out_NO[:, rows])
    return out_NO if bias_O is None else out_NO.add_(bias_O)


def back(grad_NO: Tensor, weight_OI: Tensor, out_NI: Tensor) -> Tensor:
    """Writes grad W (N, I) into `out_NI`, which is of the gradient's type; a narrower weight is widened piece by piece."""
    if grad_NO.dtype == weight_OI.dtype:
        return torch.mm(grad_NO, weight_OI, out=out_NI)
    out_NI.zero_()
    for rows in _pieces(weight_OI):
        out_NI.addmm_(grad_NO[:, rows], weight_OI[rows].to(grad_NO.dtype))
    return out_NI


def _pieces(weight_OI: Tensor) -> list[slice]:
    size = max(1, PIECE // weight_OI.shape[1])
    return [slice(start, start + size) for start in range(0, len(weight_OI), size)]
