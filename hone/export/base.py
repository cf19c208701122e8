"""What every export target is given, and what it hands back. A target is one file with one class, registered by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from hone.core.errors import HoneError
from hone.core.registry import Registry, nearest
from hone.data.chat import ChatTemplate
from hone.export.proof.diagnose import Verdict
from hone.export.proof.golden import Golden
from hone.export.tensors import Weights
from hone.plan.packed import Scheme

Checked = Verdict | str
"""What replaying the certificate has shown, or why it was not replayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A trained model, ready to leave: nothing of it is in memory but its names."""

    name: str
    """Short, for file names."""
    weights: Callable[[], Weights]
    """The trained weights; opened when a target needs them. Raises M040 for a method that cannot be folded."""
    config: dict[str, Any]
    """config.json of the base."""
    base: Mapping[str, str]
    """Name and fingerprint, perhaps revision, of the base."""
    base_folder: Path
    method: str
    tokenizer: Any
    template: ChatTemplate
    golden: Golden
    adapter: Path | None = None
    """Folder of the adapter in peft's format; None for a whole model."""
    scheme: Scheme | None = None
    """How the base was quantised for the training."""
    system: str | None = None
    """The system prompt that all of the training data had."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """What the base's makers advise: temperature, top_p, top_k, repetition_penalty."""
    importance: Callable[[Callable[[str], None]], Mapping[str, Tensor]] = lambda tell: {}
    """By the weight's name, how much each input feature matters in the training data; empty where that is not known."""
    card: Callable[[str, bool], str] = lambda place, loads: ""
    """The model card of the run, front matter included, for a place on the hub that transformers can load, or cannot."""

    @property
    def context(self) -> int:
        """Positions that the model has."""
        named = (self.config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx"))
        return next((size for size in named if isinstance(size, int)), 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One artifact to be made."""

    source: Source
    quant: str
    folder: Path
    """Where it is to be, under its final name."""
    tell: Callable[[str], None]
    made: Mapping[str, Path]
    """Artifacts of the same command that are finished, by target."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """repo, private: for the hub."""
    check: Callable[[Path], Checked] = lambda path: "it was not asked for"
    """Replays the certificate on what was written, before it gets its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """What was made."""

    target: str
    path: Path
    what: str
    """One sentence for its README."""
    commands: tuple[str, ...]
    """Lines to copy, which use it."""
    notes: tuple[str, ...] = ()
    checked: Checked = ""


class Target(Protocol):
    """One way out of the house."""

    quants: tuple[str, ...]
    """The choices of --quant, the default first."""

    def needed(self, order: Order) -> int:
        """Bytes of disk that it takes at most, known before anything is written. Raises where the export is impossible."""

    def write(self, order: Order) -> Artifact:
        """Make the artifact: staged, whole, and only then named."""


TARGETS: Registry[type[Target]] = Registry("export target")


def choose_quant(target: str, wanted: str | None) -> str:
    """The quantisation of a target: as asked where the target knows it, else its default. Raises C045."""
    known = TARGETS[target]().quants
    if wanted is None:
        return known[0]
    plain = re.sub(r"[-_.]", "", wanted.lower())
    for quant in known:
        if re.sub(r"[-_.]", "", quant.lower()) == plain:
            return quant
    raise HoneError("C045", f"--to {target} has no quantisation '{wanted}'", where="--quant", fix=nearest(wanted, known))


def folder_name(source: Source, target: str, quant: str) -> str:
    """The artifact's folder: seedling-gguf-Q8_0."""
    default = TARGETS[target]().quants[0]
    return f"{source.name}-{target}" + (f"-{quant}" if quant and (quant != default or target == "gguf") else "")
