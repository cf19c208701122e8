"""Which weights may move. A method edits one model instance in place and can step aside to show the base.

A method is a settings dataclass registered under its name: its fields are its YAML settings, its docstring its help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

from torch import nn

from hone.core.registry import Registry


class Tuning(Protocol):
    """What every method offers. All state lives in the model; a method is only its settings."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        """Freeze what must not move, add what must. Raises M004 where nothing would be trained."""

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        """Show the base model while the context lasts. Raises M011 for methods that move the base itself."""

    def merge(self, model: nn.Module) -> None:
        """Fold what was learned into plain weights, leaving a model without our modules."""

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        """Write the artifact that others load: an adapter in PEFT's format, or a whole model."""

    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        """Read back what `save` wrote into an attached model. Raises M003 for another base."""


class Untouched:
    """The base as it is, for asking it; nothing moves."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def merge(self, model: nn.Module) -> None:
        """There is nothing to fold."""

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        raise AssertionError("an untouched model has nothing to save")

    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        raise AssertionError("an untouched model has nothing to load")


METHODS: Registry[type[Tuning]] = Registry("method")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name to parameter of all that moves, in a stable order; tied weights once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def replace(
    model: nn.Module, match: Callable[[str, nn.Module], bool], make: Callable[[str, nn.Module], nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Swap sub-modules of this one instance; classes and libraries are never touched. Yields (path, new module)."""
    for name, old in list(model.named_modules()):
        if name and match(name, old):
            parent, _, leaf = name.rpartition(".")
            new = make(name, old)
            setattr(model.get_submodule(parent), leaf, new)
            yield name, new
