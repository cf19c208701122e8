"""Low-rank adaptation (arXiv 2106.09685) with its well-known refinements.

Rank-stabilised scaling is arXiv 2312.03732, LoRA+ arXiv 2402.12354, PiSSA 2404.02948, OLoRA 2406.01775, LoftQ 2310.08659.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning import experts, peft_io, rows, starts, whole
from hone.tuning.base import METHODS, About, Beside, Tuning, replace
from hone.tuning.lowrank import LoraEmbedding, LoraLinear, Part, dense_weight, embedding_start
from hone.tuning.packed import Packed, like
from hone.tuning.shapes import Shapes, shape_of
from hone.tuning.targets import ALL, choose


@METHODS.add("lora")
@settings
class Lora(Tuning):
    """Small low-rank matrices beside frozen weights. The default: near full quality at a fraction of the memory."""

    about = About(when="nearly always: the default", paper="2106.09685", peft_type="LORA")

    rank: Annotated[int, Ge(1)] = 16
    """Size of the added matrices. 8 to 64 is usual; more rank holds more, and needs more data."""
    alpha: Annotated[float, Gt(0)] | None = None
    """Scale of the change is alpha / rank. None means twice the rank."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the adapter's inputs dropped while training."""
    targets: tuple[str, ...] | str = "all-linear"
    """Layers to adapt: names such as q_proj or embed_tokens, patterns (regular expressions), or all-linear. The experts of a mixture
    move where they are named: gate_up_proj and down_proj."""
    exclude: tuple[str, ...] = ()
    """Names or patterns that are left alone."""
    layers: tuple[int, ...] | None = None
    """Indices of the blocks to adapt; None means all."""
    ranks: dict[str, Annotated[int, Ge(1)]] = field(default_factory=dict)
    """Other ranks for some layers: name or pattern -> rank."""
    alphas: dict[str, Annotated[float, Gt(0)]] = field(default_factory=dict)
    """Other alphas for some layers: name or pattern -> alpha."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, so that large ranks keep learning."""
    init: starts.Kind = "default"
    """Where the matrices start: default and gaussian change nothing; pissa and olora train the strongest part of each
    weight; loftq makes up for what rounding the base to 4 bits loses."""
    b_rate: Annotated[float, Gt(0)] = 1.0
    """LoRA+: how many times faster B moves than A. 1 is plain LoRA, 16 the paper's choice."""
    train: tuple[str, ...] = ()
    """Modules to train whole beside the adapter, such as lm_head and embed_tokens."""
    tokens: tuple[str | int, ...] | None = None
    """Tokens, by text or id, whose rows of embedding and head move as well. None means those that end an answer and that the
    frozen head cannot tell from others, because the base never learned them."""

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        stored = peft_io.load_adapter(folder)
        return METHODS["dora" if stored.config.dora else "lora"](**stored.settings())

    def rank_at(self, path: str) -> int:
        """The rank of the layer at a path."""
        return self.ranks.get(peft_io.pattern_of(self.ranks, path), self.rank)

    def alpha_at(self, path: str) -> float:
        alpha = self.alpha if self.alpha is not None else 2.0 * self.rank
        return self.alphas.get(peft_io.pattern_of(self.alphas, path), alpha)

    def scale_at(self, path: str) -> float:
        """What the product B A of the layer at a path is multiplied with."""
        return self.alpha_at(path) / self.divisor(self.rank_at(path))

    def divisor(self, rank: int) -> float:
        return math.sqrt(rank) if self.rslora else rank

    @property
    def scale(self) -> float:
        """The scale of layers that no pattern names."""
        return self.scale_at("")

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        shapes = Shapes.of(model)
        wanted = set(self.chosen(shapes))
        for _ in replace(model, lambda path, _: path in wanted, lambda path, old: self._part(path, old, generator)):
            pass
        if stacked := [path for path in shapes.experts if path in wanted]:
            self._check_experts(stacked)
            experts.add_changes(model, {path: (self.rank_at(path), self.scale_at(path)) for path in stacked}, self.init, generator)
        whole.train_whole(model, self.train)
        if self.tokens:
            self._check_tokens(model)
            rows.move_rows(model, len(self.tokens))
            if all(isinstance(token, int) for token in self.tokens):
                rows.choose_rows(model, self.tokens)

    def prime(self, model: nn.Module, encode: Callable[[str], list[int]]) -> None:
        if any(isinstance(token, str) for token in self.tokens or ()):
            rows.choose_rows(model, self.tokens or (), encode)

    def can_move_rows(self, shapes: Shapes) -> bool:
        """Whether single rows of the embedding and the head are free to move: neither table does so already."""
        return not self.train and shapes.embedding not in self.chosen(shapes)

    def _check_tokens(self, model: nn.Module) -> None:
        """Rows of a table that moves otherwise cannot move apart. Raises M101."""
        shapes = Shapes.of(model)
        moving = [path for path in (shapes.embedding, shapes.head) if path and isinstance(model.get_submodule(path), Beside)]
        if moving:
            what = f"'{moving[0]}' moves already, so single rows of it cannot move apart"
            raise HoneError(
                "M101", what, where="tuning.tokens", fix="leave tuning.tokens out, or take the table out of tuning.train and tuning.targets"
            )

    def _check_experts(self, paths: list[str]) -> None:
        """Raises M045 for what a change of stacked weights cannot have."""
        wrong = {"dropout": self.dropout > 0, "init": self.init not in ("default", "gaussian")}
        for name in (name for name, set_so in wrong.items() if set_so):
            what = f"'{paths[0]}' holds the weights of all experts, and tuning.{name} is for linear layers only"
            raise HoneError("M045", what, where=f"tuning.{name}", fix=f"leave tuning.{name} out, or the experts out of tuning.targets")

    def count(self, shapes: Shapes) -> int:
        known = self._candidates(shapes)
        total = sum(self.count_at(path, known[path]) for path in self.chosen(shapes))
        return total + whole.count_whole(shapes, self.train) + rows.count_rows(shapes, len(self.tokens or ()))

    def count_at(self, path: str, shape: tuple[int, int]) -> int:
        """Parameters of one adapted layer."""
        return self.rank_at(path) * sum(shape)

    def _candidates(self, shapes: Shapes) -> dict[str, tuple[int, int]]:
        """Path -> (outputs, inputs) of everything that could be adapted; of experts, those of all together."""
        known = shapes.linears
        if self.targets != ALL:
            stacked = {path: (count * outputs, count * inputs) for path, (count, outputs, inputs) in shapes.experts.items()}
            known = known | stacked | {shapes.embedding: (shapes.table[1], shapes.table[0])}
        return {path: shape for path, shape in known.items() if not whole.is_whole(path, self.train)}

    def chosen(self, shapes: Shapes) -> list[str]:
        """Paths of everything that gets a low-rank change. Raises M004 where a name is nowhere."""
        return choose(self._candidates(shapes), self.targets, every=shapes.paths, exclude=self.exclude, layers=self.layers)

    def _part(self, path: str, base: nn.Module, generator: torch.Generator) -> Part:
        rank, scale = self.rank_at(path), self.scale_at(path)
        if isinstance(base, nn.Embedding):
            return LoraEmbedding(base, embedding_start(rank, base.weight, generator), scale=scale)
        if self.init == "loftq" and isinstance(base, Packed):
            return self.linear_part(base, starts.making_up(base, rank, scale), scale)
        weight_OI = dense_weight(base) if self.init in starts.READING else torch.empty(shape_of(base), **like(base))
        return self.linear_part(base, starts.start(self.init, weight_OI, rank, scale, generator), scale)

    def linear_part(self, base: nn.Module, start: starts.Start, scale: float) -> LoraLinear:
        """The module that takes a linear layer's place."""
        return LoraLinear(base, start, scale=scale, dropout=self.dropout)

    def rate(self, name: str) -> float:
        return self.b_rate if name.endswith(".b") else 1.0

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """The subtracted starts: another machine's decomposition may differ in its last bits."""
        halves = {f"{path}.{name}": half for path, part in parts(model).items() for name, half in part.named_buffers(recurse=False)}
        return {name: half for name, half in halves.items() if name.endswith(("minus_a", "minus_b"))}

    @torch.no_grad()
    def merge(self, model: nn.Module) -> None:
        """Fold the change into the weights, added in fp32 and rounded once."""
        super().merge(model)
        whole.untie(model)

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        found, stacked = parts(model), experts.changes_of(model)
        twice = 2 if any(part.minus_a is not None for part in found.values()) else 1
        ranks = {path: twice * self.rank_at(path) for path in (*found, *stacked)}
        louder = self.divisor(twice)
        alphas = {path: louder * self.alpha_at(path) for path in ranks}
        rank, alpha = twice * self.rank, louder * self.alpha_at("")
        options = {
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "fan_in_fan_out": any(isinstance(part.base, Conv1D) for part in found.values()),
            "rank_pattern": {path: each for path, each in ranks.items() if each != rank},
            "alpha_pattern": {path: each for path, each in alphas.items() if each != alpha},
            "modules_to_save": whole.whole_paths(model) or None,
            "trainable_token_indices": rows.row_config(model),
            "target_parameters": sorted(stacked) or None,
        }
        rounding = self.init == "loftq" and not any(isinstance(part.base, Packed) for part in found.values())
        rounded = {"rounded": "nf4"} if rounding else {}
        peft_io.save_adapter(
            folder,
            {path: part.pair() for path, part in found.items()},
            options | self.peft_options(),
            base={**base, **rounded},
            linear=_all_shapes(model),
            extra=self.extra_tensors(model),
            tables=[path for path, part in found.items() if isinstance(part, LoraEmbedding)],
        )

    def peft_options(self) -> dict[str, Any]:
        """Further settings in peft's words."""
        return {}

    def extra_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Tensors besides A and B, under peft's names."""
        return whole.whole_tensors(model) | rows.row_tensors(model) | experts.expert_tensors(model)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        stored = peft_io.load_adapter(folder, base=base)
        found, where = parts(model), str(folder)
        for shapes in (_all_shapes(model), {path: part.shape for path, part in found.items()}) if stored.tensors else ():
            peft_io.check_fit(stored, shapes, where=where)
        together = stored.config.init == "default"
        rooms = {path: (len(part.pair()[0]) if together else len(part.a), part.scale) for path, part in found.items()}
        for path, pair in stored.at(rooms).items():
            found[path].fill(pair, whole=together)
        peft_io.fill_extra(self.extra_tensors(model), stored.extra, where=where)
        for path, change in experts.changes_of(model).items():
            change.b.mul_(stored.config.scale(path) / change.scale)


def _all_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Path -> (outputs, inputs) of all that could be adapted, as it is without adapters."""
    shapes = Shapes.of(model)
    linears = {path.removesuffix(".base"): shape for path, shape in shapes.linears.items()}
    return linears | {shapes.embedding: (shapes.table[1], shapes.table[0])}


def parts(model: nn.Module) -> dict[str, Part]:
    """Path -> module of everything that has a low-rank change."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Part)}


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """Path -> layer of every adapted linear layer."""
    return {path: module for path, module in model.named_modules() if isinstance(module, LoraLinear)}
