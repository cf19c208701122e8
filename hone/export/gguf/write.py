"""Writes one GGUF file, tensor by tensor: nothing but the tensor at hand is in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.faults import fault_point
from hone.export.gguf.families import Family, extra_tensors, gguf_names
from hone.export.gguf.header import BLOCKS
from hone.export.gguf.package import gguf_package
from hone.export.gguf.types import TYPES
from hone.export.tensors import Weights

HEADS = ("token_embd.weight", "output.weight")
SMALL = {"Q4_0": "Q8_0", "Q5_0": "Q8_0"}
"""What embedding and head are stored in where the rest is narrow: their errors reach every answer directly."""
SIZES = {name: (block, size) for name, block, size in BLOCKS.values()}


class Planned(NamedTuple):
    """One tensor of the file to be."""

    source: str
    """Its name in transformers; empty for one that is computed."""
    shape: tuple[int, ...]
    kind: str

    @property
    def nbytes(self) -> int:
        block, size = SIZES[self.kind]
        return torch.Size(self.shape).numel() // block * size


def plan(weights: Weights, family: Family, config: Mapping[str, Any], quant: str, blocks: int) -> dict[str, Planned]:
    """GGUF's name to what will lie there. Raises M080 for a tensor without a name in GGUF, M081 for one that would not be honoured."""
    name_of = gguf_names(family.arch, blocks)
    planned = {name: Planned("", tuple(tensor.shape), "F32") for name, tensor in extra_tensors(config).items()}
    for source in weights.names():
        if not family.holds(source, partial(weights.get, source)):
            continue
        name, shape = name_of(source), weights.shape(source)
        shape = shape[::-1] if family.flipped and source in weights.flipped else shape
        planned[name] = Planned(source, shape, kind_of(name, shape, quant))
    return planned


def kind_of(name: str, shape: tuple[int, ...], quant: str) -> str:
    """The type of a tensor: vectors stay fp32, and what does not divide into blocks stays 16 bits wide."""
    if len(shape) < 2 or name.startswith(("position_embd", "rope_")):
        return "F32"
    matrix = TYPES[quant].matrix
    kind = SMALL.get(matrix, matrix) if name in HEADS else matrix
    return "F16" if shape[-1] % SIZES[kind][0] else kind


class Content(NamedTuple):
    """All that goes into a file."""

    family: Family
    config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    planned: Mapping[str, Planned]
    weights: Weights


def write(file: Path, content: Content, *, tell: Callable[[str], None]) -> None:
    """Write the container: metadata, the table of tensors, and each tensor as its turn comes. Raises M084 for what is not finite."""
    gguf = gguf_package()
    writer = gguf.GGUFWriter(file, content.family.arch)
    for key, value in content.metadata.items():
        _add(writer, gguf, key, value)
    for name, planned in content.planned.items():
        kind = gguf.GGMLQuantizationType[planned.kind]
        block, size = SIZES[planned.kind]
        raw_shape = (*planned.shape[:-1], planned.shape[-1] // block * size)
        plain = {"F32": "float32", "F16": "float16"}.get(planned.kind)
        shape, dtype = (planned.shape, plain) if plain else (raw_shape, "uint8")
        writer.add_tensor_info(name, shape, _numpy(dtype), planned.nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    computed = extra_tensors(content.config)
    for i, (name, planned) in enumerate(content.planned.items(), start=1):
        if i % 50 == 1:
            tell(f"writing {file.name}: tensor {i} of {len(content.planned)}")
        fault_point(f"mid_write:{file.name}")
        tensor = computed[name] if not planned.source else content.weights.get(planned.source)
        if planned.source:
            tensor = content.family.store(planned.source, tensor, content.config)
        writer.write_tensor_data(_quantised(gguf, name, tensor, planned.kind))
    writer.close()


def _numpy(name: str) -> Any:
    import numpy

    return numpy.dtype(name)


def _quantised(gguf: Any, name: str, tensor: Tensor, kind: str) -> Any:
    """The bytes of a tensor as they will lie, rounded once from fp32."""
    array = tensor.float().contiguous().numpy()
    made = gguf.quants.quantize(array, gguf.GGMLQuantizationType[kind])
    if kind == "F16" and not bool(_finite(made)):
        what = f"'{name}' holds values beyond 65504, where F16 ends"
        raise HoneError("M084", what, where="--quant F16", fix="use --quant BF16 or F32")
    return made


def _finite(array: Any) -> Any:
    import numpy

    return numpy.isfinite(array).all()


def _add(writer: Any, gguf: Any, key: str, value: Any) -> None:
    """One key, with the type that llama.cpp expects for a value like this."""
    types = gguf.GGUFValueType
    if isinstance(value, list):
        writer.add_array(key, value)
        return
    kind = {bool: types.BOOL, int: types.UINT32, float: types.FLOAT32, str: types.STRING}[type(value)]
    writer.add_key_value(key, value, kind)
