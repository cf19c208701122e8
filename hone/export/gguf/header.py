"""Reads the header of a GGUF file with limits on everything: a file that lies about its sizes is refused before it costs memory.

(The reader of gguf 0.19 builds an object for each element of an array, and hangs on a 49-byte file that announces 2**63.)
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hone.core.errors import HoneError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
LARGEST_HEADER = 1 << 30
"""Bytes of metadata that are read."""
MOST_KEYS, MOST_TENSORS, MOST_ELEMENTS, LONGEST = 10_000, 100_000, 10_000_000, 64 << 20
"""Keys, tensors, elements of an array, bytes of a text."""
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
SIZES = {form: struct.calcsize(f"<{form}") for form in _SCALARS.values()}
"""Bytes of a scalar."""
_TEXT, _ARRAY = 8, 9
BLOCKS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
}  # fmt: skip
"""Number of a type to its name, the elements of a block, and its bytes."""


class Place(NamedTuple):
    """One tensor: its type, its shape as torch gives it (rows first), and where its bytes lie."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """All that a GGUF file says before its numbers."""

    file: Path
    metadata: dict[str, Any]
    tensors: dict[str, Place]

    @property
    def arch(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def own(self, key: str, default: Any = None) -> Any:
        """A key of the architecture: "block_count" for llama.block_count."""
        return self.metadata.get(f"{self.arch}.{key}", default)


def read_header(file: Path) -> Header:
    """Metadata and the places of all tensors. Raises M083 for a file that is no GGUF, is cut short, or does not add up."""
    with file.open("rb") as stream:
        held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""
        reader = _Reader(held, file)
        if reader.take(4) != MAGIC:
            raise reader.wrong("it does not begin with GGUF")
        version = reader.number("I")
        if version not in VERSIONS:
            raise reader.wrong(f"its version is {version}")
        tensors, keys = reader.count(MOST_TENSORS, "tensors"), reader.count(MOST_KEYS, "keys")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = reader.text()
            if key in metadata:
                raise reader.wrong(f"'{key}' is there twice")
            metadata[key] = reader.value(reader.number("I"))
        listed = [_entry(reader) for _ in range(tensors)]
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
            raise reader.wrong(f"its alignment is {alignment!r}")
        return Header(file, metadata, _placed(reader, listed, -(-reader.at // alignment) * alignment))


class _Reader:
    """Bytes of a file from a place `at` on, never more than there are."""

    def __init__(self, held: mmap.mmap | bytes, file: Path) -> None:
        self.held, self.file, self.at = held, file, 0
        self.whole = len(held)
        self.size = min(self.whole, LARGEST_HEADER)

    def wrong(self, why: str) -> HoneError:
        return HoneError("M083", f"this is no GGUF file that can be read: {why}", where=str(self.file), fix="copy or make the file again")

    def take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > self.size:
            raise self.wrong(f"it announces {count:,} bytes where {max(0, self.size - start):,} are left")
        return self.held[start : self.at]

    def number(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(SIZES[form]))[0]

    def count(self, most: int, what: str) -> int:
        found = int.from_bytes(self.take(8), "little")
        if found > most:
            raise self.wrong(f"it announces {found:,} {what}")
        return found

    def text(self) -> str:
        raw = self.take(self.count(LONGEST, "bytes of one text"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong("a text is not UTF-8") from None

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY or depth > 2:
            raise self.wrong(f"a value has the type {kind}")
        inner, length = self.number("I"), self.count(MOST_ELEMENTS, "elements of an array")
        if inner in _SCALARS:
            form = _SCALARS[inner]
            return list(struct.unpack(f"<{length}{form}", self.take(length * SIZES[form])))
        return [self.value(inner, depth + 1) for _ in range(length)]


class _Entry(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _entry(reader: _Reader) -> _Entry:
    name, dimensions = reader.text(), reader.number("I")
    if dimensions > 4:
        raise reader.wrong(f"it announces {dimensions:,} dimensions of a tensor")
    shape = tuple(int(reader.number("Q")) for _ in range(dimensions))
    return _Entry(name, shape[::-1], reader.number("I"), reader.number("Q"))


def _placed(reader: _Reader, listed: list[_Entry], base: int) -> dict[str, Place]:
    """Every tensor inside the file, none over another."""
    found: dict[str, Place] = {}
    for name, shape, kind, offset in listed:
        if name in found:
            raise reader.wrong(f"the tensor '{name}' is there twice")
        if kind not in BLOCKS:
            raise reader.wrong(f"the tensor '{name}' has the unknown type {kind}")
        word, block, size = BLOCKS[kind]
        if not shape or 0 in shape or shape[-1] % block:
            raise reader.wrong(f"the tensor '{name}' has the shape {shape}, which {word} cannot have")
        start = base + offset
        found[name] = Place(word, shape, start, start + math.prod(shape) // block * size)
    end = base
    for name, place in sorted(found.items(), key=lambda item: item[1].start):
        if place.start < end or place.stop > reader.whole:
            raise reader.wrong(f"the tensor '{name}' lies outside the file or over another one")
        end = place.stop
    return found
