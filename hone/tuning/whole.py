"""Modules that are trained whole beside an adapter: heads, embeddings, norms (peft's modules_to_save)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.core.registry import nearest
from hone.tuning.base import Beside, replace
from hone.tuning.packed import Packed
from hone.tuning.shapes import Shapes
from hone.tuning.targets import is_inside, matches


class Copied(Beside):
    """A frozen module and the copy of it that moves."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.copy = (base.plain() if isinstance(base, Packed) else copy.deepcopy(base)).requires_grad_(True)

    @property
    def current(self) -> nn.Module:
        return self.copy if self.active else self.base

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.current(*args, **kwargs)

    @property
    def weight(self) -> Any:
        """Heads are computed from their weight and bias."""
        return self.current.weight

    @property
    def bias(self) -> Any:
        return self.current.bias

    def merged(self) -> nn.Module:
        return self.copy


def train_whole(model: nn.Module, names: Iterable[str]) -> None:
    """Put moving copies in the place of the modules with these names. Raises M004 for a name that is nowhere."""
    wanted = tuple(names)
    paths = [path for path, _ in model.named_modules()]
    for name in wanted:
        if not any(matches(name, path) for path in paths if path):
            near = nearest(name, {path.rpartition(".")[2] for path in paths if path})
            raise HoneError("M004", f"this model has no module '{name}'", where="tuning.train", fix=near)
    for _ in replace(model, lambda path, _: is_whole(path, wanted), lambda _, old: Copied(old)):
        pass


def is_whole(path: str, names: Iterable[str]) -> bool:
    """Whether a module is trained whole."""
    return any(matches(name, path) for name in names)


def count_whole(shapes: Shapes, names: Iterable[str]) -> int:
    """Parameters of all copies. A head that shares the embedding's matrix gets a matrix of its own."""
    wanted = tuple(names)
    total = sum(math.prod(shape) for name, shape in shapes.parameters.items() if is_inside(name, wanted))
    if shapes.tied and is_whole(shapes.head, wanted):
        total += math.prod(shapes.table)
    return total


def whole_paths(model: nn.Module) -> list[str]:
    """Where the copies are."""
    return [path for path, module in model.named_modules() if isinstance(module, Copied)]


def whole_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The copies' parameters, under the names that they have in the base."""
    return {
        f"{path}.{name}": parameter
        for path, module in model.named_modules()
        if isinstance(module, Copied)
        for name, parameter in module.copy.named_parameters()
    }


def untie(model: nn.Module) -> None:
    """After merging: say in the configuration that head and embedding are two matrices, if they have become so."""
    config: Any = model.config
    head, table = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    if head is None or head.weight is table.weight:
        return
    for part in (config, config.get_text_config()):
        if part.to_dict().get("tie_word_embeddings"):
            part.tie_word_embeddings = False
