"""Writes safetensors as a stream of pieces, so that a checkpoint never needs a second copy of itself in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

PIECE = 1 << 24
"""Bytes handed on at once."""

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, header first. At most one tensor is copied at a time, and none that is on the CPU."""
    names = _order(tensors)
    yield _header(tensors, names)
    for name in names:
        raw = tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        yield from (raw[start : start + PIECE] for start in range(0, len(raw), PIECE))


def size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the file will have."""
    return len(_header(tensors, _order(tensors))) + sum(tensor.nbytes for tensor in tensors.values())


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Widest type first, so that every tensor starts at a multiple of its item size."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _header(tensors: Mapping[str, Tensor], names: list[str]) -> bytes:
    entries, start = {}, 0
    for name in names:
        end = start + tensors[name].nbytes
        entries[name] = {"dtype": _NAMES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(8 * math.ceil(len(text) / 8))
    return len(text).to_bytes(8, "little") + text
