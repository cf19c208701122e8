"""Where the parts of a transformer are: its blocks, and in each the attention and the feed-forward network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import nn

from hone.core.errors import HoneError
from hone.tuning.targets import block_of

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe")
LOW_RANK = (("q_proj", "v_proj"), ("query", "value"), ("c_attn",), ("query_key_value",), ("qkv_proj",), ("Wqkv",))
"""Names of the layers that make queries and values; the later ones make keys too."""


class Block(NamedTuple):
    """One block of a model, by paths."""

    path: str
    attention: str
    feed_forward: str
    norms: tuple[str, ...]
    """What stands between these two: layers of nothing but vectors."""


def blocks(model: nn.Module) -> list[Block]:
    """The blocks in order. Raises M062 where their parts have names that are not known."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    longest = max(lists, key=lambda name: len(lists[name]), default="")
    if not longest:
        raise HoneError("M062", "this model has no list of blocks", where="tuning.method", fix="use tuning.method=lora")
    found = [(f"{longest}.{i}", dict(block.named_children())) for i, block in enumerate(lists[longest])]
    return [
        Block(path, _part(path, children, ATTENTION), _part(path, children, FEED_FORWARD), _norms(path, children))
        for path, children in found
    ]


def _norms(path: str, children: dict[str, nn.Module]) -> tuple[str, ...]:
    vectors = {name: [parameter.ndim for parameter in child.parameters()] for name, child in children.items()}
    return tuple(f"{path}.{name}" for name, sizes in vectors.items() if sizes and set(sizes) == {1})


def norm_count(parameters: Mapping[str, tuple[int, ...]]) -> int:
    """Parameters of the norms of all blocks, by the names and shapes of a model's parameters."""
    inside = [(name, shape) for name, shape in parameters.items() if (block_of(name) is not None and len(shape) == 1)]
    after = [(re.split(r"\.\d+\.", name, maxsplit=1)[1].split("."), shape) for name, shape in inside]
    return sum(shape[0] for parts, shape in after if len(parts) == 2 and parts[0] not in (*ATTENTION, *FEED_FORWARD))


def _part(path: str, children: dict[str, nn.Module], names: tuple[str, ...]) -> str:
    name = next((name for name in names if name in children), None)
    if name is None:
        what = f"block '{path}' has no part called {' or '.join(names)} (it has {', '.join(children)})"
        raise HoneError("M062", what, where="tuning.method", fix="use tuning.method=lora, which needs linear layers only")
    return f"{path}.{name}"


def attentions(linears: Iterable[str]) -> list[str]:
    """Paths of all attention modules that hold linear layers."""
    parents = dict.fromkeys(path.rpartition(".")[0] for path in linears)
    return [path for path in parents if path.rpartition(".")[2] in ATTENTION]


def queries_and_values(linears: Iterable[str], attention: str) -> list[str]:
    """Paths of the linear layers of an attention that make its queries and values. Raises M062 where there are none."""
    inside = {path.rpartition(".")[2]: path for path in linears if path.startswith(f"{attention}.")}
    for names in LOW_RANK:
        if all(name in inside for name in names):
            return [inside[name] for name in names]
    what = f"'{attention}' has no layers that make queries and values (it has {', '.join(inside)})"
    raise HoneError("M062", what, where="tuning.method", fix="use tuning.method=lora, which needs linear layers only")
