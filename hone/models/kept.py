"""What a reference or a teacher says about fixed data, asked once and kept on disk under the hash of everything it depends on.

Shape legend: M learned tokens of all sequences in their order, L tokens of a sequence, K numbers for each token.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hone.core.files import staged_file
from hone.core.types import Facts, Group
from hone.core.types import Sequence as Tokens
from hone.data.batching import consecutive
from hone.data.lazy import LazyGroups
from hone.models.teacher import Say


class Told(LazyGroups):
    """Groups as they were, with facts of each learned token beside what they knew. Reads like a list; nothing is copied."""

    def __init__(self, groups: Sequence[Group], said: Mapping[str, Tensor]) -> None:
        self.groups, self.said = groups, said
        self._starts = [0]
        for group in groups:
            self._starts.append(self._starts[-1] + sum(sequence.learned for sequence in group))
        assert all(len(column) == self._starts[-1] for column in said.values()), "what was kept belongs to other data"

    def __len__(self) -> int:
        return len(self.groups)

    def at(self, index: int) -> Group:
        start, made = self._starts[index], list[Tokens]()
        for sequence in self.groups[index]:
            facts: Facts = {name: _spread(sequence, column[start : start + sequence.learned]) for name, column in self.said.items()}
            made.append(Tokens(sequence.tokens, sequence.weights, sequence.facts | facts, sequence.origin))
            start += sequence.learned
        return tuple(made)


def _spread(sequence: Tokens, column: Tensor) -> Tensor:
    """From an entry for each learned token to one for each token, (L,) or (L, K)."""
    learned = [i for i, weight in enumerate(sequence.weights) if i and weight]
    whole = column.new_zeros(len(sequence.tokens), *column.shape[1:])
    whole[learned] = column
    return whole


@torch.no_grad()
def kept(groups: Sequence[Group], say: Say, *, key: Mapping[str, Any], budget: int, folder: Path | None = None) -> Told:
    """The groups with what `say` tells of their learned tokens: read from disk if it was ever asked this, else asked now.

    `key` is all that the answer depends on besides the groups: who speaks (its fingerprint), and how (its settings).
    """
    file = (folder or cache_folder()) / f"{_hash(groups, key)}.safetensors"
    said = _read(file)
    if said is None:
        parts = [say(batch) for batch in consecutive(groups, budget)]
        names = parts[0] if parts else ()
        said = {name: torch.cat([part[name].cpu() for part in parts]).contiguous() for name in names}
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(file) as stage:
            save_file(said, str(stage))
    return Told(groups, said)


def cache_folder() -> Path:
    """Where answers are kept: for all runs of this user."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "hone" / "signals"


def _read(file: Path) -> dict[str, Tensor] | None:
    if not file.is_file():
        return None
    try:
        return load_file(str(file))
    except (SafetensorError, OSError):
        return None  # damaged: asked again


def _hash(groups: Sequence[Group], key: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode())
    for group in groups:
        digest.update(repr([(sequence.tokens, sequence.weights) for sequence in group]).encode())
    return digest.hexdigest()[:40]
