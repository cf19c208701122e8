"""Reads one tensor of a file, and writes files as a stream of pieces: neither a checkpoint nor a merged model is copied as a whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hone.plan.headers import Stored

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


_TYPES = {name: dtype for dtype, name in _NAMES.items()}


def read_stored(place: Stored) -> Tensor:
    """One tensor of a file, copied into memory of its own."""
    dtype = _TYPES[place.dtype]
    with place.file.open("rb") as stream:
        stream.seek(place.start)
        raw = bytearray(stream.read(place.stop - place.start))
    return torch.frombuffer(raw, dtype=dtype).reshape(place.shape) if raw else torch.empty(place.shape, dtype=dtype)


class Spec(NamedTuple):
    """What the header says of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, header first. At most one tensor is copied at a time, and none that is on the CPU."""
    return stream(_specs(tensors), tensors.__getitem__)


def stream(
    specs: Mapping[str, Spec], get: Callable[[str], Tensor], *, metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """The same for tensors that are made one by one: `get` is asked for each, in the order of the file, when its turn comes."""
    names = _order(specs)
    yield _header(specs, names, metadata)
    for name in names:
        tensor = get(name).detach().cpu().contiguous()
        assert (tensor.dtype, tuple(tensor.shape)) == specs[name], name
        raw = tensor.reshape(-1).view(torch.uint8).numpy().data
        yield from (raw[start : start + PIECE] for start in range(0, len(raw), PIECE))


def size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that the file will have."""
    return stream_size(_specs(tensors))


def stream_size(specs: Mapping[str, Spec], *, metadata: Mapping[str, str] | None = None) -> int:
    """Bytes that a file of such tensors will have."""
    return len(_header(specs, _order(specs), metadata)) + sum(spec.nbytes for spec in specs.values())


def _specs(tensors: Mapping[str, Tensor]) -> dict[str, Spec]:
    return {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def _order(specs: Mapping[str, Spec]) -> list[str]:
    """Widest type first, so that every tensor starts at a multiple of its item size."""
    return sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))


def _header(specs: Mapping[str, Spec], names: list[str], metadata: Mapping[str, str] | None) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name in names:
        end = start + specs[name].nbytes
        entries[name] = {"dtype": _NAMES[specs[name].dtype], "shape": list(specs[name].shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(8 * math.ceil(len(text) / 8))
    return len(text).to_bytes(8, "little") + text
