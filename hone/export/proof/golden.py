"""Golden vectors on disk: what a model was asked, what it said with which log-probabilities, and sketches of its weights.

Shape legend: P positions, K likeliest tokens kept, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.files import write_atomically

NAME, NUMBERS = "golden.json", "golden.safetensors"
VERSION = 1
KEPT = 16
"""Likeliest tokens whose log-probabilities are kept at each position."""
BEFORE = 8
"""Positions of the prompt that are read besides the answer's."""


@dataclass(frozen=True, slots=True)
class Vector:
    """One probe and what the model made of it."""

    name: str
    messages: list[dict[str, Any]]
    """As chat templates take them; empty for plain text."""
    tools: list[dict[str, Any]]
    text: str
    """The prompt as the template wrote it."""
    prompt: list[int]
    written: list[int]
    """The prompt's text as an engine encodes it, which takes the names of control tokens in it for control tokens."""
    answer: list[int]
    answer_text: str
    stopped: bool
    top_PK: Tensor
    logp_PK: Tensor

    @property
    def tokens(self) -> list[int]:
        return self.prompt + self.answer

    @property
    def positions(self) -> list[int]:
        """Where the next token is predicted: the end of the prompt, and the whole answer."""
        return positions(len(self.prompt), len(self.answer))


def positions(prompt: int, answer: int) -> list[int]:
    """The places that are read of a prompt and an answer of these lengths."""
    return list(range(max(0, prompt - 1 - BEFORE), max(prompt, prompt + answer - 1)))


@dataclass(frozen=True, slots=True)
class Sketch:
    """One weight matrix, (O, I): its size, and four numbers that change when it does."""

    shape: tuple[int, int]
    norm: float
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What training changed in a matrix: directions u (O) and v (I) where it changed most, with u'Wv of the base and of the change."""

    u: Tensor
    v: Tensor
    base: float
    strength: float
    numbers: tuple[float, ...]
    """The sketch of the base's matrix."""


@dataclass(frozen=True, slots=True)
class Golden:
    """The certificate of one trained model."""

    about: dict[str, Any]
    """How it was made: dtype, base, method, template, special tokens, vocabulary."""
    vectors: tuple[Vector, ...]
    sketches: dict[str, Sketch] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    rows_V: Tensor | None = None
    """The embedding of each token, seen from one direction."""

    def save(self, folder: Path) -> None:
        """Write golden.json and golden.safetensors."""
        tensors: dict[str, Tensor] = {} if self.rows_V is None else {"rows": self.rows_V}
        for i, vector in enumerate(self.vectors):
            tensors |= {f"top/{i}": vector.top_PK.int(), f"logp/{i}": vector.logp_PK.float()}
        for name, change in self.changes.items():
            tensors |= {f"u/{name}": change.u, f"v/{name}": change.v}
        hidden = ("top_PK", "logp_PK")
        document = {
            "version": VERSION,
            "about": self.about,
            "vectors": [{key: getattr(v, key) for key in Vector.__slots__ if key not in hidden} for v in self.vectors],
            "sketches": {name: [*s.shape, s.norm, *s.numbers] for name, s in self.sketches.items()},
            "changes": {name: [c.base, c.strength, *c.numbers] for name, c in self.changes.items()},
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / NUMBERS, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
        write_atomically(folder / NAME, json.dumps(document, ensure_ascii=False, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Golden:
        """Read them back. Raises F041 where there are none, F042 where they cannot be read."""
        if not (folder / NAME).is_file():
            fix = "give the folder of a run with --golden RUN; runs of earlier versions have none: export once more"
            raise HoneError("F041", f"there are no golden vectors here ({NAME} is missing)", where=str(folder), fix=fix)
        try:
            document = json.loads((folder / NAME).read_text("utf-8"))
            return cls._of(document, load_file(folder / NUMBERS))
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            line = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            raise HoneError("F042", f"the golden vectors cannot be read ({line})", where=str(folder), fix="copy them again") from None

    @classmethod
    def _of(cls, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Golden:
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']}")
        vectors = [Vector(**v, top_PK=tensors[f"top/{i}"].long(), logp_PK=tensors[f"logp/{i}"]) for i, v in enumerate(document["vectors"])]
        sketches = {name: Sketch((int(o), int(i)), norm, tuple(rest)) for name, (o, i, norm, *rest) in document["sketches"].items()}
        changes = {
            name: Change(tensors[f"u/{name}"], tensors[f"v/{name}"], base, strength, tuple(numbers))
            for name, (base, strength, *numbers) in document["changes"].items()
        }
        return cls(document["about"], tuple(vectors), sketches, changes, tensors.get("rows"))


def likeliest(logp_PV: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that are kept at each position, and their log-probabilities, (P, K) each."""
    logp_PK, top_PK = logp_PV.float().topk(min(KEPT, logp_PV.shape[-1]), dim=-1)
    return top_PK.cpu(), logp_PK.cpu()


def finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
