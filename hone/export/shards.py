"""Writes a model's weights in shards: one tensor at a time is read, added to, rounded once and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from hone.core.files import write_atomically, write_hashed
from hone.export.tensors import Weights
from hone.models.tensorfile import Spec, stream, stream_size
from hone.plan.headers import INDEX

SHARD = 4 << 30
"""Largest file in bytes, unless one tensor alone is larger."""
METADATA = {"format": "pt"}


def specs(weights: Weights, dtype: torch.dtype | None) -> dict[str, Spec]:
    """What will be written: every tensor in `dtype`, or each in the type that it had."""
    return {name: Spec(dtype or weights.dtype(name), weights.shape(name)) for name in weights.names()}


def needed_bytes(weights: Weights, dtype: torch.dtype | None) -> int:
    """What the files will take on the disk."""
    return stream_size(specs(weights, dtype), metadata=METADATA)


def write_weights(
    folder: Path, weights: Weights, *, dtype: torch.dtype | None = None, limit: int = SHARD, tell: Callable[[str], None]
) -> dict[str, str]:
    """Write model.safetensors, or several files and their index; returns SHA-256 by file name.

    Memory is that of the largest tensor. What does not fit into a narrower type (float16 ends at 65504) stays finite or raises.
    """
    planned = specs(weights, dtype)
    parts = _parts(planned, limit)
    names = (
        ["model.safetensors"] if len(parts) == 1 else [f"model-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    )

    def rounded(name: str) -> Tensor:
        return weights.get(name).to(planned[name].dtype)

    hashes = {}
    for i, (file, part) in enumerate(zip(names, parts, strict=True), start=1):
        tell(f"writing {file} ({i} of {len(parts)})")
        hashes[file] = write_hashed(folder / file, stream({name: planned[name] for name in part}, rounded, metadata=METADATA))
    if len(parts) > 1:
        placed = {name: file for file, part in zip(names, parts, strict=True) for name in part}
        total = sum(spec.nbytes for spec in planned.values())
        write_atomically(folder / INDEX, json.dumps({"metadata": {"total_size": total}, "weight_map": placed}, indent=1))
    return hashes


def _parts(planned: dict[str, Spec], limit: int) -> list[list[str]]:
    """Tensors in order, a new file where the next one would make it too large."""
    parts: list[list[str]] = [[]]
    size = 0
    for name, spec in planned.items():
        if parts[-1] and size + spec.nbytes > limit:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += spec.nbytes
    return parts
