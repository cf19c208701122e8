"""Quantised weights as they lie in files and in memory: how they are named, what they say of themselves, and their exact bytes.

The layout is that of bitsandbytes, which transformers, peft and vLLM read: codes under the weight's own name, and beside
them the largest value of each block, itself quantised or not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hone.core.errors import HoneError
from hone.plan.headers import Stored

BLOCK, GROUP = 64, 256
"""Values that share a scale, and scales that share one when they are quantised again."""
TABLE = 1024
"""Bytes of the values that quantised scales can take; in memory there is one table for all layers."""
ROUTERS = ("router", "gate", "shared_expert_gate")
"""Layers that choose experts are never quantised: a few thousand numbers, on which everything after them depends."""
HEADS = ("lm_head", "embed_tokens", "embed_out", "wte")
STATE = ".weight.quant_state.bitsandbytes__"
SAID = re.compile(r"(?P<dynamic>unsloth-)?bnb-(?P<bits>[48])bit|(?P<plain>[48])[-_]?bit", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How linear layers are quantised. The head, the embeddings and the layers in `skip` (paths) are not."""

    kind: str
    """nf4, fp4 or int8."""
    double: bool = False
    """The scales are quantised again, which takes 0.37 of the 0.5 bits that they add to a weight."""
    skip: tuple[str, ...] = ()

    @property
    def bits(self) -> int:
        return 8 if self.kind == "int8" else 4

    def __str__(self) -> str:
        kept = f", {len(self.skip)} layers kept" if self.skip else ""
        return f"{self.kind}{' with double quantisation' if self.double else ''}{kept}"


class PackedWeight(NamedTuple):
    """One quantised weight of a file: what it is when unpacked, and what it takes when not."""

    kind: str
    double: bool
    outputs: int
    inputs: int
    nbytes: int


def packed_bytes(kind: str, double: bool, size: int, *, outputs: int) -> int:
    """Bytes of a quantised weight in memory, scales and all; the table of double quantisation comes once, beside."""
    if kind == "int8":
        return size + 4 * outputs
    blocks = math.ceil(size / BLOCK)
    return math.ceil(size / 2) + (blocks + 4 * math.ceil(blocks / GROUP) + 4 if double else 4 * blocks)


def scheme_of(config: Mapping[str, Any]) -> Scheme | None:
    """What a model's configuration says of its own quantisation by bitsandbytes; None for plain weights and other methods."""
    said = config.get("quantization_config")
    if not isinstance(said, Mapping) or said.get("quant_method", "bitsandbytes") != "bitsandbytes":
        return None
    skip = tuple(str(name) for name in said.get("llm_int8_skip_modules") or () if str(name).rpartition(".")[2] not in HEADS)
    if said.get("load_in_8bit"):
        return Scheme("int8", skip=skip)
    return Scheme(str(said.get("bnb_4bit_quant_type", "fp4")), bool(said.get("bnb_4bit_use_double_quant")), skip)


def config_of(scheme: Scheme, head: str) -> dict[str, Any]:
    """The `quantization_config` that transformers, peft and vLLM read.

    A skip list of one's own drops transformers' automatic one (transformers issue 45674), so the head is always in it.
    """
    eight = scheme.kind == "int8"
    return {
        "quant_method": "bitsandbytes",
        "load_in_8bit": eight,
        "load_in_4bit": not eight,
        "llm_int8_skip_modules": [head, *scheme.skip],
        "llm_int8_threshold": 6.0,
        "llm_int8_has_fp16_weight": False,
        "llm_int8_enable_fp32_cpu_offload": False,
        "bnb_4bit_quant_type": "fp4" if eight else scheme.kind,
        "bnb_4bit_use_double_quant": scheme.double,
        "bnb_4bit_compute_dtype": "bfloat16",
        "bnb_4bit_quant_storage": "uint8",
    }


def skips(scheme: Scheme, path: str) -> bool:
    """Whether a layer is kept as it is, by transformers' rule: a name is a beginning up to a dot, a pattern, or an end."""
    return any(re.match(rf"(?:{name})(?:(?<=\.)|(?=\.|$))", path) or path.endswith(name) for name in scheme.skip)


def packed_weights(stored: Mapping[str, Stored]) -> dict[str, PackedWeight]:
    """Path -> quantised weight of all that lie in a model's files; only headers and a few hundred bytes of each are read."""
    found: dict[str, PackedWeight] = {}
    for name, tensor in stored.items():
        path, mark, kind = name.partition(STATE)
        if mark:
            found[path] = _four_bits(path, kind, stored)
        elif name.endswith(".SCB"):
            path, (outputs, inputs) = name.removesuffix(".SCB"), stored[f"{name.removesuffix('SCB')}weight"].shape
            found[path] = PackedWeight("int8", False, outputs, inputs, outputs * inputs + tensor.stop - tensor.start)
    return found


def _four_bits(path: str, kind: str, stored: Mapping[str, Stored]) -> PackedWeight:
    state, double = read_state(stored[f"{path}{STATE}{kind}"]), f"{path}.weight.nested_absmax" in stored
    kept = [stored[f"{path}.weight{part}"] for part in ("", ".absmax", *([".nested_absmax"] if double else []))]
    outputs, inputs = state["shape"]
    return PackedWeight(kind, double, outputs, inputs, sum(one.stop - one.start for one in kept) + (4 if double else 0))


def read_state(place: Stored) -> dict[str, Any]:
    """Shape, block size and offset of a 4-bit weight, which lie in the file as JSON. Raises M005 where they do not."""
    with place.file.open("rb") as stream:
        stream.seek(place.start)
        raw = stream.read(min(place.stop - place.start, 4096))
    try:
        state = json.loads(raw)
    except ValueError:
        state = None
    if not isinstance(state, dict) or not isinstance(state.get("shape"), list) or len(state["shape"]) != 2:
        raise HoneError("M005", "a 4-bit weight does not say its shape", where=str(place.file), fix="copy or download the file again")
    return state


class Share(NamedTuple):
    """The quantised part of a model."""

    kind: str | None
    numbers: int
    nbytes: int


def share_of(scheme: Scheme | None, layers: Iterable[tuple[str, int, int]], stored: Mapping[str, Stored]) -> Share:
    """What of a model is quantised, exactly: as its files are, or by a scheme for its (path, outputs, inputs)."""
    packed = packed_weights(stored)
    if packed:
        numbers, nbytes = sum(one.outputs * one.inputs for one in packed.values()), sum(one.nbytes for one in packed.values())
        return Share(next(iter(packed.values())).kind, numbers, nbytes + TABLE * any(one.double for one in packed.values()))
    if scheme is None:
        return Share(None, 0, 0)
    chosen = [(o, i) for path, o, i in layers if path.rpartition(".")[2] not in ROUTERS and not skips(scheme, path)]
    nbytes = sum(packed_bytes(scheme.kind, scheme.double, o * i, outputs=o) for o, i in chosen)
    return Share(scheme.kind, sum(o * i for o, i in chosen), nbytes + TABLE * scheme.double)


def beside(name: str, packed: Iterable[str]) -> bool:
    """Whether a stored tensor belongs to a quantised weight: its codes, its scales, its tables."""
    path = name.removesuffix(".SCB") if name.endswith(".SCB") else name.partition(".weight")[0]
    return path in packed and not name.endswith(".bias")


def contradiction(name: str, config: Mapping[str, Any], stored: Mapping[str, Stored] | None = None) -> str:
    """Where a model's name, its configuration and its files say different things of its quantisation; empty if they agree."""
    scheme, packed = scheme_of(config), packed_weights(stored) if stored else None
    if packed is not None and scheme is None and packed:
        return "its files hold quantised weights, but config.json has no quantization_config for them"
    if packed is not None and scheme is not None and not packed:
        return f"config.json says {scheme}, but its files hold no quantised weight"
    said = SAID.search(Path(name).name)
    if said is None or (scheme is None and config.get("quantization_config")):
        return ""
    bits = int(said["bits"] or said["plain"])
    if scheme is None:
        return f"its name says {bits}-bit, but config.json has no quantization_config: the weights are plain"
    if scheme.bits != bits:
        return f"its name says {bits}-bit, but config.json says {scheme}"
    if said["dynamic"] and not scheme.skip:
        return "its name says dynamic 4-bit, but config.json keeps no layer but the head in 16 bits"
    return ""
