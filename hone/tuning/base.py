"""Which weights may move. A method edits one model instance in place and can step aside to show the base.

A method is a settings dataclass registered under its name: its fields are its YAML settings, its docstring its help. What
it puts into a model derives from `Ours`, so that stepping aside, merging and taking off are the same for all methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.core.registry import Registry
from hone.tuning import folder as adapter_folder
from hone.tuning.packed import unpack
from hone.tuning.shapes import Shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What is known of a method before any model is there."""

    when: str
    """When to choose it, in one sentence."""
    paper: str = ""
    """arXiv id."""
    peft_type: str | None = None
    """peft's name for the same method: its format is then ours on disk. None for a format of our own."""
    unmergeable: str = ""
    """Why it cannot be folded into plain weights; empty if it can."""
    artifact: Literal["adapter", "model"] = "adapter"
    """What a run leaves behind."""
    learning_rate: float = 2e-4
    """Where to start."""
    starts_as_base: bool = True
    """Before the first step, the tuned model says what the base says."""

    @property
    def mergeable(self) -> bool:
        return not self.unmergeable

    @property
    def exports(self) -> tuple[str, ...]:
        """What others can be given."""
        adapter = ("peft",) if self.peft_type else ("hone",)
        plain = ("merged", "gguf", "ollama", "vllm") if self.mergeable else ()
        return (adapter if self.artifact == "adapter" else ()) + plain


class Ours(nn.Module):
    """Anything that a method puts into a model. While `active` is false the model must compute exactly as the base."""

    active: bool = True


class Beside(Ours):
    """A module of ours in the place of one of the base's, which it keeps as `base`."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def merged(self) -> nn.Module:
        """A plain module that computes the same; most often the base with changed weights."""
        raise NotImplementedError


class Prologue(Ours):
    """What stands before every sequence; `prologue_of` finds it as the child "prologue" of a model.

    Packed, padded and cached forwards ask it, once for each forward: for the embeddings of virtual tokens, or for keys and
    values that every query reads.
    """

    virtual_tokens: ClassVar[bool]
    """Whether it is virtual tokens; else it is keys and values."""
    length: int
    positions: int
    """Where the first real token stands. peft counts all of a prologue; keys and values could also take no positions."""

    def prompt(self) -> Tensor:
        """Embeddings (P, D) of the virtual tokens."""
        raise NotImplementedError

    def keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (K, P, D) of a layer."""
        raise NotImplementedError


class Tuning:
    """What every method offers. All state lives in the model; a method is only its settings."""

    about: ClassVar[About]

    def attach(self, model: nn.Module, *, seed: int) -> None:
        """Freeze what must not move, add what must. Raises M004 where nothing would be trained."""
        raise NotImplementedError

    def count(self, shapes: Shapes) -> int:
        """How many parameters would move, by formula: nothing is built."""
        raise NotImplementedError

    @property
    def positions(self) -> int:
        """Positions of the model's context that it takes for itself."""
        return 0

    def room(self, context: int | None) -> int | None:
        """Positions of a model's context that are left for text; None is without limit."""
        return None if context is None else context - self.positions

    def prime(self, model: nn.Module, encode: Callable[[str], list[int]]) -> None:
        """Start from words, where the settings name some. `encode` makes token ids of them."""

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        """Show the base model while the context lasts. Raises M011 for methods that move the base itself."""
        return stepping_aside(model)

    def detach(self, model: nn.Module) -> None:
        """Take our modules off: the base as it was. Raises M011 for methods that move the base itself."""
        for name, module in reversed(_beside(model)):
            model.set_submodule(name, module.base)
        if prologue_of(model) is not None:
            del model.prologue

    @torch.no_grad()
    def merge(self, model: nn.Module) -> None:
        """Fold what was learned into plain weights, leaving a model without our modules; packed weights are unpacked first.

        Raises M040 where that is impossible.
        """
        self.check_merge(model)
        unpack(model)
        for name, module in reversed(_beside(model)):
            model.set_submodule(name, module.merged())

    def check_merge(self, model: nn.Module) -> None:
        """Raise M040, with the reason and the way out, where `merge` would."""
        if self.about.unmergeable:
            what = f"'{name_of(self)}' cannot be folded into plain weights: {self.about.unmergeable}"
            raise HoneError("M040", what, where="tuning.method", fix="serve the adapter with hone, or train with tuning.method=lora")

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        """Write the artifact that others load: an adapter in PEFT's shape, or a whole model."""
        config = adapter_folder.own_config(name_of(self), dataclasses.asdict(self))  # type: ignore[call-overload]
        tensors = {name: parameter.detach() for name, parameter in trainable(model).items()}
        adapter_folder.write(folder, tensors, config, base=base)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        """Read back what `save` wrote into an attached model. Raises M003 for another base, M041 where it does not fit."""
        stored = adapter_folder.read(folder, base=base)
        adapter_folder.copy_into(trainable(model), stored, where=str(folder))

    @classmethod
    def located(cls, folder: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Saved settings as they are meant where the folder lies now."""
        return options

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        """The method and settings that make room for an adapter of `about.peft_type`. Raises M019 for options that cannot be honoured."""
        raise NotImplementedError

    def rate(self, name: str) -> float:
        """Factor on the learning rate of a parameter."""
        return 1.0

    def begin(self, model: nn.Module, *, step: int, total: int) -> None:
        """Before the forwards of an optimiser step, counted from 1. torch's generator is already seeded for the step."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """A term added to the loss once for each optimiser step, whatever the number of micro-batches."""
        return None

    def stepped(self, model: nn.Module, *, step: int, total: int) -> None:
        """After the weights have moved, with the (clipped) gradients still in place."""

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """Tensors besides the parameters that a resumed run needs, by name; a checkpoint is copied into them."""
        return {}


class Untouched(Tuning):
    """The base as it is, for asking it; nothing moves."""

    about = About(when="to ask the base")

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)

    def count(self, shapes: Shapes) -> int:
        return 0

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        raise AssertionError("an untouched model has nothing to save")

    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        raise AssertionError("an untouched model has nothing to load")


METHODS: Registry[type[Tuning]] = Registry("method")


def name_of(tuning: Tuning) -> str:
    """The name that a method is registered under."""
    return next((name for name, method in METHODS.items() if method is type(tuning)), type(tuning).__name__.lower())


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name to parameter of all that moves, in a stable order; tied weights once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def prologue_of(model: nn.Module) -> Prologue | None:
    """What stands before every sequence of this model, while it takes part."""
    found = dict(model.named_children()).get("prologue")
    return found if isinstance(found, Prologue) and found.active else None


@contextmanager
def stepping_aside(model: nn.Module) -> Iterator[None]:
    """All our modules that are active fall silent while the context lasts."""
    ours = [module for module in model.modules() if isinstance(module, Ours) and module.active]
    for module in ours:
        module.active = False
    try:
        yield
    finally:
        for module in ours:
            module.active = True


def replace(
    model: nn.Module, match: Callable[[str, nn.Module], bool], make: Callable[[str, nn.Module], nn.Module]
) -> Iterator[tuple[str, nn.Module]]:
    """Swap sub-modules of this one instance; classes and libraries are never touched. Yields (path, new module)."""
    for name, old in list(model.named_modules()):
        if name and match(name, old):
            parent, _, leaf = name.rpartition(".")
            new = make(name, old)
            if isinstance(new, Ours):
                new.train(old.training)
            setattr(model.get_submodule(parent), leaf, new)
            yield name, new


def _beside(model: nn.Module) -> list[tuple[str, Beside]]:
    """All our modules that keep one of the base's, by path. Reversed, inner ones come before those around them, while their paths hold."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Beside)]
