"""MAM (arXiv 2110.04366): a short prefix in attention and a wide, scaled adapter beside every feed-forward network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt
from torch import nn

from hone.core.config import settings
from hone.tuning.adapter import ParallelAdapter
from hone.tuning.base import METHODS, About, Tuning
from hone.tuning.prefix import Prefix
from hone.tuning.shapes import Shapes


@METHODS.add("mam")
@settings
class Mam(Tuning):
    """Mix-and-match: the parts that a comparison of adapters, prefixes and LoRA found best, together."""

    about: ClassVar[About] = About(
        when="near full tuning with a few percent of the parameters, where the adapter need not be merged",
        paper="2110.04366", unmergeable="its prefix and its nonlinear adapters are in no weight", learning_rate=1e-3, starts_as_base=False,
    )  # fmt: skip

    length: Annotated[int, Ge(1)] = 30
    """Positions of the prefix."""
    encoder: Annotated[int, Ge(1)] | None = None
    """Width of a network that makes the prefix while training, 800 in the paper; None trains it directly."""
    text: str | None = None
    """Words that the prefix starts from."""
    size: Annotated[int, Ge(1)] | None = None
    """Width of the adapters; None is half the hidden size."""
    scale: Annotated[float, Gt(0)] = 4.0
    """What the adapters' output is multiplied with."""

    @property
    def prefix(self) -> Prefix:
        """The one half."""
        return Prefix(length=self.length, encoder=self.encoder, text=self.text)

    @property
    def adapter(self) -> ParallelAdapter:
        """The other half."""
        return ParallelAdapter(size=self.size, scale=self.scale)

    @property
    def positions(self) -> int:
        return self.length

    def attach(self, model: nn.Module, *, seed: int) -> None:
        self.prefix.attach(model, seed=seed)
        prologue = model.prologue
        self.adapter.attach(model, seed=seed)
        prologue.requires_grad_(True)

    def prime(self, model: nn.Module, encode: Callable[[str], list[int]]) -> None:
        self.prefix.prime(model, encode)

    def count(self, shapes: Shapes) -> int:
        return self.prefix.count(shapes) + self.adapter.count(shapes)
