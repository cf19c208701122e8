"""Prompts and prefixes on disk in peft's format: one table, `prompt_embeddings`, whatever network made it.

Shape legend: P positions, X columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.tuning import folder as adapter_folder

KEY = "prompt_embeddings"


def write(folder: Path, table_PX: Tensor, config: Mapping[str, Any], *, base: Mapping[str, str]) -> None:
    """Write a table with its configuration in peft's words."""
    shape = {"num_virtual_tokens": len(table_PX), "num_transformer_submodules": 1}
    adapter_folder.write(folder, {KEY: table_PX}, {**config, **shape}, base=base, prefix="")


def read(folder: Path, types: tuple[str, ...], shape: tuple[int, int], *, base: Mapping[str, str]) -> Tensor:
    """The table (P, X) of a folder. Raises M019 for another method, M041 for other sizes, and what `folder.read` raises."""
    stored = adapter_folder.read(folder, base=base)
    check_type(stored.config, types, where=str(folder))
    adapter_folder.check_finite(stored.tensors, where=str(folder))
    table_PX = stored.tensors.get(KEY)
    if table_PX is None or tuple(table_PX.shape) != shape:
        found = "holds no prompt" if table_PX is None else f"is {' x '.join(map(str, table_PX.shape))}"
        what = f"the adapter {found}; here it must be {shape[0]} x {shape[1]}"
        name = stored.base.get("name") or "(unknown)"
        raise HoneError("M041", what, where=str(folder), fix=f"attach it with its own length, to its base: model={name}")
    return table_PX if table_PX.dtype == torch.float64 else table_PX.float()


def check_type(config: Mapping[str, Any], types: tuple[str, ...], *, where: str) -> None:
    """Raise M019 for an adapter of another method, or with modules of its own."""
    kind = config.get("peft_type")
    if kind not in types:
        what = f"the adapter's method is {str(kind).partition(':')[0]}, not {types[0]}"
        raise HoneError("M019", what, where=where, fix="open it by its folder, which says what it is")
    if config.get("modules_to_save"):
        what = f"the adapter uses peft's option modules_to_save={config['modules_to_save']!r}, which cannot be honoured here"
        raise HoneError("M019", what, where=where, fix="train it again without that option")


def length_of(folder: Path) -> int:
    """How many positions an adapter of peft has. Raises M019 where its configuration does not say."""
    length = adapter_folder.read_config(folder).get("num_virtual_tokens")
    if type(length) is not int or length < 1:
        raise HoneError("M019", f"num_virtual_tokens is {length!r}, which is no length", where=str(folder), fix=adapter_folder.AGAIN)
    return length


def repeated(ids: list[int], length: int) -> list[int]:
    """Token ids cut or repeated to a length. Raises M061 for a text without tokens."""
    if not ids:
        raise HoneError("M061", "the text to start from has no tokens", where="tuning.text", fix="write the task in a sentence")
    return (ids * -(-length // len(ids)))[:length]
