"""Partial tuning: some of the base's own weights move, the rest is frozen."""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge
from torch import nn

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.tuning.base import METHODS, About
from hone.tuning.full import Full, check_plain
from hone.tuning.shapes import Shapes
from hone.tuning.targets import block_of, is_inside, matches


@METHODS.add("freeze")
@settings
class Freeze(Full):
    """The last blocks move, or whatever is named: embeddings, the head, norms. The rest of the base is frozen."""

    about = About(
        when="full tuning of a part: the last blocks, or embeddings and head for new words",
        artifact="model",
        learning_rate=5e-5,
    )

    last: Annotated[int, Ge(0)] = 2
    """How many of the last blocks move."""
    train: tuple[str, ...] = ()
    """What else moves: names of modules or parameters, or patterns, such as lm_head, embed_tokens, norm or .*layernorm.*"""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        check_plain(model, "freeze")
        moving = set(self._moving(Shapes.of(model)))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in moving)

    def count(self, shapes: Shapes) -> int:
        return sum(math.prod(shapes.parameters[name]) for name in self._moving(shapes))

    def _moving(self, shapes: Shapes) -> list[str]:
        """Names of the parameters that move. Raises M004 where there are none, or where a name is nowhere."""
        named = {pattern: [name for name in shapes.parameters if _meant(name, pattern, shapes)] for pattern in self.train}
        for pattern, found in named.items():
            if not found:
                near = nearest(pattern, {part for name in shapes.parameters for part in name.split(".")})
                raise HoneError("M004", f"this model has no part called '{pattern}'", where="tuning.train", fix=near)
        chosen = {name for found in named.values() for name in found}
        blocks = range(max(0, shapes.layers - self.last), shapes.layers)
        moving = [name for name in shapes.parameters if name in chosen or block_of(name) in blocks]
        if not moving:
            raise HoneError("M004", "nothing would move", where="tuning.last", fix="set tuning.last=2, or name parts in tuning.train")
        return moving


def _meant(name: str, pattern: str, shapes: Shapes) -> bool:
    """A parameter is meant by its name or by a module around it; a head that shares the embedding's matrix means that."""
    if matches(pattern, name) or is_inside(name, (pattern,)):
        return True
    return shapes.tied and name == f"{shapes.embedding}.weight" and matches(pattern, shapes.head)
