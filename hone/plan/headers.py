"""The table of contents of safetensors files, read without loading a tensor: names, types, shapes and where the bytes lie."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hone.core.errors import HoneError

INDEX = "model.safetensors.index.json"
LARGEST_HEADER = 100_000_000
"""The format's own limit, in bytes."""
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64}
_AGAIN = "copy or download the file again"


class Stored(NamedTuple):
    """One tensor as it lies in a file: its bytes are [start, stop) of the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(file: Path) -> dict[str, Stored]:
    """Name to place of every tensor of one file. Raises M005 for a file that is cut short, empty or does not add up."""
    size = file.stat().st_size
    if size < 8:
        raise HoneError("M005", f"{file.name} is {'empty' if size == 0 else 'cut short'} ({size} bytes)", where=str(file), fix=_AGAIN)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size - 8, LARGEST_HEADER):
            what = f"{file.name} announces a header of {length:,} bytes, but the file has {size:,}"
            raise HoneError("M005", what, where=str(file), fix=_AGAIN)
        entries = _parse(stream.read(length), file)
    entries.pop("__metadata__", None)
    found = {name: _stored(name, entry, file, 8 + length) for name, entry in entries.items()}
    _check_layout(found, file, 8 + length, size)
    return found


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: the one file, or the shards that the index lists. Raises M005 for a lost shard."""
    single = folder / "model.safetensors"
    if single.exists():
        return [single]
    files = sorted({folder / name for name in shards(folder).values()})
    for file in files:
        if not file.exists():
            raise HoneError("M005", f"a part of the weights is missing: {file.name}", where=str(folder), fix="download the model again")
    return files


def shards(folder: Path) -> dict[str, str]:
    """Tensor name to file name, from the index of a model in several files; empty when there is no index."""
    index = folder / INDEX
    if not index.exists():
        return {}
    placed = _parse(index.read_bytes(), index).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise HoneError("M005", f"{INDEX} does not say which file holds which tensor", where=str(index), fix=_AGAIN)
    for name in placed.values():
        if name != Path(name).name or "\\" in name:
            raise HoneError("M005", f"{INDEX} points outside its folder: '{name}'", where=str(index), fix="do not use this model")
    return placed


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model's folder. Raises M005 where the index and the files disagree."""
    found: dict[str, Stored] = {}
    for file in weight_files(folder):
        for name, stored in read_header(file).items():
            if name in found:
                raise HoneError("M005", f"tensor '{name}' is in two files", where=f"{found[name].file.name}, {file.name}")
            found[name] = stored
    listed = shards(folder) if not (folder / "model.safetensors").exists() else {}
    for name, file_name in listed.items():
        if name not in found:
            raise HoneError("M005", f"tensor '{name}' is listed in the index but is not in {file_name}", where=str(folder), fix=_AGAIN)
    return found


def _parse(raw: bytes, file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, dict):
        raise HoneError("M005", f"{file.name} has no readable table of contents", where=str(file), fix=_AGAIN)
    return entries


def _stored(name: str, entry: Any, file: Path, base: int) -> Stored:
    """One entry of the header, checked: sizes are whole numbers and the bytes fit the type and the shape."""
    wrong = HoneError("M005", f"tensor '{name}' is badly described", where=str(file), fix=_AGAIN)
    if not isinstance(entry, Mapping) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise wrong
    shape, offsets = entry["shape"], entry["data_offsets"]
    typed = isinstance(entry["dtype"], str) and isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    if not typed or not all(type(n) is int and n >= 0 for n in [*shape, *offsets]):
        raise wrong
    start, stop = offsets
    bits = BITS.get(entry["dtype"])
    if bits is not None and (stop - start) * 8 != math.prod(shape) * bits:
        what = f"tensor '{name}' of shape {tuple(shape)} and type {entry['dtype']} cannot lie in {stop - start:,} bytes"
        raise HoneError("M005", what, where=str(file), fix=_AGAIN)
    return Stored(file, entry["dtype"], tuple(shape), base + start, base + stop)


def _check_layout(found: Mapping[str, Stored], file: Path, base: int, size: int) -> None:
    """The tensors must fill the file exactly, one after the other."""
    at = base
    for name, stored in sorted(found.items(), key=lambda item: (item[1].start, item[1].stop)):
        if stored.start != at:
            raise HoneError("M005", f"tensor '{name}' does not begin where the one before it ends", where=str(file), fix=_AGAIN)
        if stored.stop > size:
            what = f"{file.name} is cut short in tensor '{name}': {size:,} bytes of at least {stored.stop:,}"
            raise HoneError("M005", what, where=str(file), fix=_AGAIN)
        at = stored.stop
    if at != size:
        raise HoneError("M005", f"{file.name} has {size - at:,} bytes that belong to no tensor", where=str(file), fix=_AGAIN)
