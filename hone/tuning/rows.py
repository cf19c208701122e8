"""Rows of a frozen embedding and head that move beside an adapter, so that it can say tokens that the base never learned.

The format on disk is peft's `trainable_token_indices`. Shape legend: K moving rows, V vocabulary, D hidden size, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.tuning.base import Beside, replace
from hone.tuning.shapes import Shapes

NAME = "token_adapter.trainable_tokens_delta"
"""What peft calls the rows: the new rows themselves, in spite of the name."""


class Rows(Beside):
    """A frozen table of which some rows have been replaced by ones that move. `slot` (V,) is -1 for all others."""

    def __init__(self, base: nn.Module, count: int, rows: nn.Parameter | None = None) -> None:
        super().__init__(base)
        frozen_VD = self.table
        wide = torch.promote_types(frozen_VD.dtype, torch.float32)
        self.rows = nn.Parameter(frozen_VD.new_zeros(count, frozen_VD.shape[1], dtype=wide)) if rows is None else rows
        self.register_buffer("tokens", torch.zeros(count, dtype=torch.long, device=frozen_VD.device), persistent=False)
        self.register_buffer("slot", torch.full((len(frozen_VD),), -1, device=frozen_VD.device), persistent=False)

    @torch.no_grad()
    def start(self, tokens: Sequence[int]) -> None:
        """Which rows move, from where they stand in the base."""
        self.get_buffer("tokens").copy_(torch.tensor(tokens))
        self.get_buffer("slot").fill_(-1)[self.get_buffer("tokens")] = torch.arange(len(tokens), device=self.rows.device)
        self.rows.copy_(self.table[self.get_buffer("tokens")])

    @property
    def table(self) -> Tensor:
        """The frozen table (V, D)."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight.detach()

    @property
    def weight(self) -> Tensor:
        """The table as it stands, a copy while rows are replaced: for those who look at it, not for the loop."""
        if not self.active:
            return self.table
        return self.table.index_copy(0, self.get_buffer("tokens"), self.rows.detach().to(self.table.dtype))

    def merged(self) -> nn.Module:
        self.table.index_copy_(0, self.get_buffer("tokens"), self.rows.detach().to(self.table.dtype))
        return self.base


class EmbeddingRows(Rows):
    """The input side."""

    def forward(self, ids: Tensor) -> Tensor:
        found: Tensor = self.base(ids)
        if not self.active:
            return found
        slot = self.get_buffer("slot")[ids]
        scales = dict(self.base.named_buffers())  # Gemma's embedding multiplies what it finds
        mine = self.rows[slot.clamp(min=0)].to(found.dtype)
        mine = mine * scales["embed_scale"].to(found.dtype) if "embed_scale" in scales else mine
        return torch.where((slot >= 0)[..., None], mine, found)


class HeadRows(Rows):
    """The output side: the logits of K tokens get what their rows have changed by."""

    def change(self) -> Tensor:
        """Moving minus frozen rows (K, D)."""
        return self.rows - self.table[self.get_buffer("tokens")].to(self.rows.dtype)

    @property
    def bias(self) -> Any:
        return self.base._parameters.get("bias")

    def forward(self, hidden: Tensor) -> Tensor:
        raw: Tensor = self.base(hidden)
        if not self.active:
            return raw
        return raw.index_add(-1, self.get_buffer("tokens"), hidden @ self.change().to(hidden.dtype).t())


def move_rows(model: nn.Module, count: int) -> None:
    """Let `count` rows of the embedding and the head move; `choose_rows` says which. A tied table keeps one set of rows."""
    shapes = Shapes.of(model)
    ends = {shapes.embedding: EmbeddingRows} | ({shapes.head: HeadRows} if shapes.head else {})
    shared: list[nn.Parameter] = []

    def make(path: str, old: nn.Module) -> Rows:
        made = ends[path](old, count, shared[0] if shapes.tied and shared else None)
        shared.append(made.rows)
        return made

    for _ in replace(model, lambda path, _: path in ends, make):
        pass


def choose_rows(model: nn.Module, names: Iterable[str | int], encode: Callable[[str], list[int]] | None = None) -> None:
    """Say which tokens' rows move, by text or id. Raises M100 for a text that is not one token and an id beyond the table."""
    moving = [module for module in model.modules() if isinstance(module, Rows)]
    for module in moving:
        module.start([_one(name, encode, len(module.table)) for name in names])


def _one(name: str | int, encode: Callable[[str], list[int]] | None, size: int) -> int:
    if isinstance(name, str):
        assert encode is not None, "tokens given by text need a tokenizer"
        pieces = encode(name)
        if len(pieces) != 1:
            what = f"{name!r} is {len(pieces)} tokens, and rows move for whole tokens"
            raise HoneError("M100", what, where="tuning.tokens", fix="name tokens of the vocabulary, such as its end-of-turn mark")
        return pieces[0]
    if not 0 <= name < size:
        what = f"there is no token {name}: the embedding has {size:,} rows"
        raise HoneError("M100", what, where="tuning.tokens", fix=f"give an id from 0 to {size - 1}")
    return name


def count_rows(shapes: Shapes, tokens: int) -> int:
    """Parameters of moving rows."""
    return tokens * shapes.table[1] * (1 if shapes.tied or not shapes.head else 2)


def row_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The rows under peft's names; those of a tied head are the embedding's."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, Rows) and not any(module.rows is tensor for tensor in found.values()):
            found[f"{path}.{NAME}"] = module.rows
    return found


def row_config(model: nn.Module) -> Mapping[str, list[int]] | None:
    """peft's setting for the same: name of the table -> ids."""
    named = {name.removesuffix(f".{NAME}"): tensor for name, tensor in row_tensors(model).items()}
    return {path: model.get_submodule(path).get_buffer("tokens").tolist() for path in named} or None
