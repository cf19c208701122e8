"""The linear layers of a transformer block, and how many numbers each tuning method adds to them; counted without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hone.plan.headers import Stored
from hone.plan.packed import packed_weights
from hone.plan.shapes import PLAIN_MLP, ModelFacts

CONV1D = ("gpt2", "gpt_bigcode")
"""Families that keep their weights the other way round, and query, key and value in one matrix."""
OUTSIDE = ("embed", "wte", "wpe", "lm_head", "embed_out", "norm", "ln_")
"""Parts of names of matrices that are no linear layer of a block."""
STACKED = re.compile(r"\.experts\.|\.(gate|router)$")
"""Files hold each expert of a mixture by itself. In memory all lie in one tensor: neither they nor what chooses them are linear layers."""
FREE = ("full", "freeze", "bitfit")
"""Methods that add nothing beside the layers: they move what is there."""


class Linear(NamedTuple):
    """A linear layer: its path, its outputs and its inputs."""

    name: str
    outputs: int
    inputs: int

    @property
    def size(self) -> int:
        return self.outputs * self.inputs


def linears(facts: ModelFacts, stored: Mapping[str, Stored] | None = None) -> list[Linear]:
    """All linear layers of all blocks: read from the weights' headers where they are here, else from the family's shape."""
    found = _from_headers(facts, stored) if stored else []
    return found or [Linear(f"layers.{i}.{name}", *shape) for i in range(facts.layers) for name, shape in _block(facts)]


def _from_headers(facts: ModelFacts, stored: Mapping[str, Stored]) -> list[Linear]:
    found, packed = [], packed_weights(stored)
    for name, tensor in stored.items():
        path = name.removesuffix(".weight")
        inside = re.search(r"\.(\d+)\.", name) and not any(part in path.rpartition(".")[2] for part in OUTSIDE)
        inside = inside and not (facts.experts and STACKED.search(path))
        if inside and path in packed:
            found.append(Linear(path, packed[path].outputs, packed[path].inputs))
        elif inside and name.endswith(".weight") and len(tensor.shape) == 2:
            rows, columns = tensor.shape
            found.append(Linear(path, columns, rows) if facts.family in CONV1D else Linear(path, rows, columns))
    return found


def _block(facts: ModelFacts) -> list[tuple[str, tuple[int, int]]]:
    hidden, wide = facts.hidden, facts.intermediate
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    if facts.family in CONV1D:
        attention = [("attn.c_attn", (query + 2 * key, hidden)), ("attn.c_proj", (hidden, query))]
        return [*attention, ("mlp.c_fc", (wide, hidden)), ("mlp.c_proj", (hidden, wide))]
    shapes = {"q_proj": (query, hidden), "k_proj": (key, hidden), "v_proj": (key, hidden), "o_proj": (hidden, query)}
    block = [(f"self_attn.{name}", shape) for name, shape in shapes.items()]
    if facts.family in PLAIN_MLP:
        return [*block, ("mlp.fc1", (wide, hidden)), ("mlp.fc2", (hidden, wide))]
    feed = {"gate_proj": (wide, hidden), "up_proj": (wide, hidden), "down_proj": (hidden, wide)}
    if facts.experts:
        return block
    return [*block, *((f"mlp.{name}", shape) for name, shape in feed.items())]


class Adapters(NamedTuple):
    """What a method trains: numbers in all, how many of them lie beside frozen weights, and what its layers keep of a token."""

    trainable: int
    added: int
    kept: int
    """Numbers that the backward keeps of each token, beside those of the model itself."""
    largest: int
    """The largest matrix that a merge must form at once."""


def adapters(facts: ModelFacts, tuning: Mapping[str, Any], layers: Iterable[Linear]) -> Adapters | None:
    """The sizes of one method with its settings; None for a method whose size only its own code knows."""
    method, layers = tuning["method"], list(layers)
    if method == "full":
        return Adapters(facts.parameters, 0, 0, 0)
    named = tuning.get("targets", "all-linear") != "all-linear"
    if method != "lora" or not plain_lora(tuning) or (facts.experts and named):  # experts may be named
        return None
    rank = int(tuning["rank"])
    chosen = [layer for layer in layers if _chosen(layer.name, tuning)]
    count = sum(rank * (layer.outputs + layer.inputs) for layer in chosen)
    return Adapters(count, count, rank * len(chosen), max((layer.size for layer in chosen), default=0))


LORA: dict[str, Any] = {"rank": 16, "alpha": None, "dropout": 0.0, "targets": "all-linear", "exclude": (), "layers": None, "rslora": False}
"""The settings of plain low-rank adaptation that count here, with their defaults; a test holds them to the method's own."""
PLAIN: dict[str, Any] = {"ranks": {}, "alphas": {}, "init": "default", "b_rate": 1.0, "train": (), "tokens": None}
"""Further ones, which must stand at these values for the size to be a formula of the others."""


def plain_lora(tuning: Mapping[str, Any]) -> bool:
    """Whether the settings are of the plain method, whose size is a formula."""
    return all(key in LORA or (key in PLAIN and value == _listed(PLAIN[key], value)) for key, value in tuning.items() if key != "method")


def _listed(wanted: Any, like: Any) -> Any:
    """JSON has lists where settings have tuples."""
    return list(wanted) if isinstance(like, list) and wanted is not None else wanted


def _chosen(name: str, tuning: Mapping[str, Any]) -> bool:
    block = re.search(r"\.(\d+)\.", f".{name}")
    if tuning.get("layers") is not None and (block is None or int(block[1]) not in tuning["layers"]):
        return False
    if any(_matches(pattern, name) for pattern in tuning.get("exclude") or ()):
        return False
    targets = tuning.get("targets", "all-linear")
    if targets == "all-linear":
        return True
    return any(_matches(pattern, name) for pattern in ((targets,) if isinstance(targets, str) else targets))


def _matches(pattern: str, name: str) -> bool:
    """A plain name is the last part of a path, as in the method itself; a pattern may or may not begin at the model's name."""
    if name.rpartition(".")[2] == pattern or name == pattern:
        return True
    try:
        return any(re.fullmatch(pattern, path) is not None for path in (name, f"model.{name}", f"transformer.{name}"))
    except re.error:
        return False


def largest(layers: Iterable[Linear]) -> int:
    """Numbers of the largest linear layer."""
    return max((layer.size for layer in layers), default=0)


def total(layers: Iterable[Linear]) -> int:
    """Numbers of all linear layers together."""
    return math.fsum(layer.size for layer in layers).__trunc__()
