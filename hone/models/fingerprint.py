"""Which base an adapter belongs to: a short name for a model's architecture and weights, the same for every copy of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from hone.plan.headers import Stored, stored_tensors
from hone.plan.shapes import ModelFacts, model_facts
from hone.tuning.packed import packed_layers

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
VALUES = 4096
"""Values that are read of each tensor: the beginning of its middle row."""
BUFFERS = ("inv_freq", "masked_bias")
"""Constants that some copies of a model store and others leave out."""


def fingerprint(folder: Path, facts: ModelFacts | None = None) -> str:
    """ "architecture-weights", 16 hexadecimal digits each, from a few kilobytes of every tensor.

    Values are rounded to bfloat16 first, so the float32 and the bfloat16 copy of a model agree. Names of tensors do not
    enter, since a copy saved with another prefix is the same model; a head that is stored twice counts once.
    """
    return f"{_architecture(facts or model_facts(folder))}-{_weights(folder)}"


@torch.no_grad()
def fingerprint_of(model: nn.Module) -> str:
    """16 hexadecimal digits for a model in memory, whatever was put into it: some values of every parameter, and their sum.

    Of quantised layers, which have no parameters, it is their codes and scales.
    """
    digest = hashlib.sha256()
    packed = {f"{path}.{name}": buffer for path, layer in packed_layers(model).items() for name, buffer in layer.named_buffers()}
    for name, parameter in [*model.named_parameters(), *packed.items()]:
        flat = parameter.detach().flatten()
        some = flat[:: max(1, len(flat) // VALUES)].float().cpu().contiguous()
        digest.update(f"{name} {tuple(parameter.shape)} {flat.double().sum().item():.12g}".encode() + some.numpy().tobytes())
    return digest.hexdigest()[:16]


def _architecture(facts: ModelFacts) -> str:
    sizes = (facts.family, facts.hidden, facts.layers, facts.heads, facts.kv_heads, facts.head_dim, facts.vocab)
    return hashlib.sha256(repr(sizes).encode()).hexdigest()[:16]


def _weights(folder: Path) -> str:
    chosen = [tensor for name, tensor in stored_tensors(folder).items() if _is_weight(name, tensor)]
    digests = {_digest(tensor) for tensor in chosen}
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def _is_weight(name: str, tensor: Stored) -> bool:
    return tensor.dtype in FLOATS and len(tensor.shape) in (1, 2, 3) and 0 not in tensor.shape and not name.endswith(BUFFERS)


def _digest(tensor: Stored) -> bytes:
    """Hash of a tensor's shape and of the beginning of its middle row."""
    dtype, row = FLOATS[tensor.dtype], tensor.shape[-1]
    rows = (tensor.stop - tensor.start) // (row * dtype.itemsize)
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start + rows // 2 * row * dtype.itemsize)
        raw = bytearray(stream.read(min(row, VALUES) * dtype.itemsize))
    values = torch.frombuffer(raw, dtype=dtype).to(torch.bfloat16)
    return hashlib.sha256(repr(tensor.shape).encode() + values.view(torch.int16).numpy().tobytes()).digest()
