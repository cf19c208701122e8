"""Weights that are quantised while they are read, one matrix at a time: written as bitsandbytes writes them, or rounded and back.

Shape legend: I input features, O output features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hone.export.tensors import StoredWeights, Weights
from hone.models.quantise import EightBit, FourBit, pack, quantisable, read_packed
from hone.models.skeleton import own_name, skeleton
from hone.plan.headers import Stored, stored_tensors
from hone.plan.packed import BLOCK, GROUP, PackedWeight, Scheme, packed_weights

STATE_BYTES = 256
"""Room for a weight's description, which is JSON and may end in blanks: its length is known before the weight is packed."""
Part = tuple[str, tuple[int, ...], torch.dtype]
"""What is added to a weight's name, a shape, and a type."""


def paths_of(folder: Path, scheme: Scheme) -> frozenset[str]:
    """The layers of the model in a folder that a scheme quantises."""
    return frozenset(quantisable(skeleton(folder), scheme))


class _OneAtATime:
    """Packs a matrix when it is first asked for, and keeps it until another one is."""

    def __init__(self, base: Weights, scheme: Scheme, paths: Iterable[str]) -> None:
        self.base, self.scheme, self.flipped = base, scheme, frozenset[str]()
        self.chosen = {f"{path}.weight" for path in paths}
        self._kept: tuple[str, FourBit | EightBit] | None = None

    def packed(self, name: str) -> FourBit | EightBit:
        if self._kept is None or self._kept[0] != name:
            weight = self.base.get(name)
            self._kept = (name, pack(weight.t() if name in self.base.flipped else weight, self.scheme))
        return self._kept[1]

    def size(self, name: str) -> tuple[int, int]:
        """(outputs, inputs) of a matrix."""
        rows, columns = self.base.shape(name)
        return (columns, rows) if name in self.base.flipped else (rows, columns)


class PackedWeights(_OneAtATime):
    """The tensors of a quantised model's files, in bitsandbytes' layout: codes under the weight's name, and its scales beside."""

    def __init__(self, base: Weights, scheme: Scheme, paths: Iterable[str]) -> None:
        super().__init__(base, scheme, paths)
        self._parts: dict[str, tuple[str, Part]] = {}
        for name in base.names():
            parts = self._of(name) if name in self.chosen else [("", base.shape(name), base.dtype(name))]
            self._parts |= {_named(name, part[0]): (name, part) for part in parts}

    def names(self) -> list[str]:
        return list(self._parts)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._parts[name][1][1]

    def dtype(self, name: str) -> torch.dtype:
        return self._parts[name][1][2]

    def get(self, name: str) -> Tensor:
        whole, (part, shape, _) = self._parts[name]
        if whole not in self.chosen:
            return self.base.get(whole)
        layer = self.packed(whole)
        return (_eight(layer) if isinstance(layer, EightBit) else _four(layer))[part].reshape(shape)

    def _of(self, name: str) -> list[Part]:
        """What a quantised matrix is stored as."""
        outputs, inputs = self.size(name)
        if self.scheme.kind == "int8":
            return [("", (outputs, inputs), torch.int8), (".SCB", (outputs,), torch.float32), (".weight_format", (), torch.uint8)]
        blocks = math.ceil(outputs * inputs / BLOCK)
        own: list[Part] = [
            ("", (math.ceil(outputs * inputs / 2), 1), torch.uint8),
            (".absmax", (blocks,), torch.uint8 if self.scheme.double else torch.float32),
            (".quant_map", (16,), torch.float32),
            (f".quant_state.bitsandbytes__{self.scheme.kind}", (STATE_BYTES,), torch.uint8),
        ]
        twice: list[Part] = [
            (".nested_absmax", (math.ceil(blocks / GROUP),), torch.float32),
            (".nested_quant_map", (256,), torch.float32),
        ]
        return own + (twice if self.scheme.double else [])


def _named(weight: str, part: str) -> str:
    """Most parts follow the weight's name, those of 8 bits the layer's."""
    return weight.removesuffix(".weight") + part if part in (".SCB", ".weight_format") else weight + part


def _eight(layer: EightBit) -> dict[str, Tensor]:
    return {"": layer.get_buffer("codes"), ".SCB": layer.get_buffer("scales"), ".weight_format": torch.zeros((), dtype=torch.uint8)}


def _four(layer: FourBit) -> dict[str, Tensor]:
    from bitsandbytes.functional import get_4bit_type

    state: dict[str, Any] = {
        "quant_type": layer.kind,
        "blocksize": layer.block,
        "dtype": "bfloat16",
        "shape": [layer.out_features, layer.in_features],
    }
    parts = {"": layer.get_buffer("codes"), ".absmax": layer.get_buffer("scales"), ".quant_map": get_4bit_type(layer.kind, device="cpu")}
    if layer.nested is not None:
        state |= {"nested_blocksize": layer.group, "nested_dtype": "float32", "nested_offset": float(layer.get_buffer("offset"))}
        parts |= {".nested_absmax": layer.get_buffer("nested"), ".nested_quant_map": layer.get_buffer("table")}
    text = json.dumps(state).encode().ljust(STATE_BYTES)
    assert len(text) == STATE_BYTES, "a description that is longer than its room"
    return parts | {f".quant_state.bitsandbytes__{layer.kind}": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


class RoundedWeights(_OneAtATime):
    """The weights as a quantised base has them: each matrix packed and unpacked again, in its stored type."""

    def __init__(self, base: Weights, scheme: Scheme, paths: Iterable[str]) -> None:
        super().__init__(base, scheme, paths)
        self.flipped = base.flipped

    def names(self) -> list[str]:
        return self.base.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self.base.dtype(name)

    def get(self, name: str) -> Tensor:
        if name not in self.chosen:
            return self.base.get(name)
        weight = self.packed(name).dense(torch.float32)
        return weight.t().contiguous() if name in self.flipped else weight


class UnpackedWeights:
    """The weights of a folder whose files are quantised, unpacked one at a time. They count as bfloat16, which they once were."""

    def __init__(self, folder: Path) -> None:
        model = skeleton(folder)
        self.plain, self.flipped = StoredWeights(folder, model), frozenset[str]()
        self._stored: Mapping[str, Stored] = stored_tensors(folder)
        known = frozenset(model.state_dict())
        self._packed: dict[str, tuple[str, PackedWeight]] = {
            own_name(f"{path}.weight", model, known): (path, one) for path, one in packed_weights(self._stored).items()
        }

    def names(self) -> list[str]:
        return [*(name for name in self.plain.names() if name not in self._packed), *self._packed]

    def shape(self, name: str) -> tuple[int, ...]:
        return (self._packed[name][1].outputs, self._packed[name][1].inputs) if name in self._packed else self.plain.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return torch.bfloat16 if name in self._packed else self.plain.dtype(name)

    def get(self, name: str) -> Tensor:
        return read_packed(self._stored, self._packed[name][0]).dense(torch.float32) if name in self._packed else self.plain.get(name)


def base_weights(folder: Path, scheme: Scheme | None) -> Weights:
    """The weights of a base as a run computes with them: plain, rounded by its scheme, or unpacked from quantised files."""
    if packed_weights(stored_tensors(folder)):
        return UnpackedWeights(folder)
    stored = StoredWeights(folder)
    return stored if scheme is None else RoundedWeights(stored, scheme, paths_of(folder, scheme))
