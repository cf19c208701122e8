"""Holds a copy's weights against the sketches of the trained ones, and says what has become of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from hone.export.proof.golden import Golden, Sketch
from hone.export.proof.sketch import as_matrix, row_view, sketch
from hone.export.proof.subject import Subject

ROUNDING = {"float64": 1e-7, "float32": 1e-6, "bfloat16": 2.5e-3, "float16": 4e-4, "int8": 8e-3, "nf4": 0.1, "fp4": 0.14}
"""Relative error (Frobenius) that a type brings to a matrix of ordinary numbers."""
SLACK = 8
"""A sketch's four numbers deviate by about three times the relative error at most; eight leaves room for odd matrices."""
GONE = 0.2
"""Share of the change that may be left where a module counts as lost."""
FOREIGN = 0.3
"""Relative deviation from which on a matrix is another matrix, unless its type alone may bring a third of that."""


@dataclass(slots=True)
class Examination:
    """What was found, by the names of tensors."""

    missing: list[str] = field(default_factory=list)
    deviation: dict[str, float] = field(default_factory=dict)
    """Relative deviation of every matrix that was read."""
    allowed: float = 0.0
    other: float = FOREIGN
    """Deviation from which on a matrix is another one."""
    share: dict[str, float] = field(default_factory=dict)
    """How much of the trained change is in each changed matrix: 1 is all of it."""
    unsure: dict[str, float] = field(default_factory=dict)
    """How far rounding alone may move that share."""
    rows: list[int] = field(default_factory=list)
    """Tokens whose embedding is another one."""

    explained: dict[str, bool] = field(default_factory=dict)
    """Whether that share explains all of the difference: the matrix is the base's plus so much of the change."""
    matrices: frozenset[str] = frozenset()
    """Tensors of more than one row."""

    @property
    def beyond(self) -> dict[str, float]:
        return {name: value for name, value in self.deviation.items() if value > self.allowed}

    @property
    def foreign(self) -> bool:
        """Whether most matrices are other matrices."""
        other = [name for name in self.matrices if self.deviation[name] > self.other and not self.explained.get(name)]
        return len(other) > len(self.matrices) / 2

    @property
    def coarse(self) -> bool:
        """Whether nearly all matrices are a little off, as by a rounding that should not have been."""
        values = [self.deviation[name] for name in self.matrices]
        return sum(value > self.allowed for value in values) > 0.6 * len(values) and median(values) < self.other

    @property
    def lost(self) -> list[str]:
        return [name for name, share in self.share.items() if abs(share) < GONE and self.explained[name] and self.unsure[name] < 0.5]

    @property
    def scaled(self) -> float | None:
        """The one factor that the change of all modules was multiplied with; None where there is no such factor."""
        off = [share for name, share in self.share.items() if self.explained[name] and abs(share - 1) > self.unsure[name]]
        if len(off) < max(1, 0.8 * len(self.share)):
            return None
        middle = median(off)
        alike = sum(abs(share - middle) < 0.1 * abs(middle) + 0.02 for share in off)
        return middle if abs(middle) >= GONE and alike >= 0.8 * len(off) else None

    @property
    def misfit(self) -> list[str]:
        """Modules whose change is neither whole nor lost."""
        lost = set(self.lost)
        return [name for name, share in self.share.items() if name not in lost and abs(share - 1) > self.unsure[name]]


def examine(golden: Golden, subject: Subject, rounding: float) -> Examination:
    """Read every tensor once. `rounding` is the relative error that the copy's type brings."""
    found = Examination(allowed=SLACK * rounding + 1e-5, other=max(FOREIGN, 3 * rounding))
    known = set(subject.weights.names())
    found.missing = [name for name in golden.sketches if name not in known]
    found.matrices = frozenset(name for name, expected in golden.sketches.items() if expected.shape[0] > 1 and name in known)
    for name, expected in golden.sketches.items():
        if name not in known:
            continue
        weight = subject.weights.get(name)
        flipped = name in subject.weights.flipped
        seen = sketch(name, weight, flipped=flipped)
        found.deviation[name] = _apart(expected, seen.numbers) if seen.shape == expected.shape else float("inf")
        if name in golden.changes and seen.shape == expected.shape:
            _share(found, golden, name, as_matrix(weight, flipped=flipped), rounding)
            found.explained[name] = _explains(found, golden, name, seen.numbers)
        if name == subject.embedding and golden.rows_V is not None:
            found.rows = _rows(golden.rows_V, weight, found.allowed)
    return found


def _apart(expected: Sketch, numbers: Iterable[float]) -> float:
    """Largest difference of two sketches, relative to the matrix."""
    return max(abs(a - b) for a, b in zip(expected.numbers, numbers, strict=True)) / max(expected.norm, 1e-12)


def _share(found: Examination, golden: Golden, name: str, weight_OI: Tensor, rounding: float) -> None:
    change = golden.changes[name]
    u, v = change.u.to(weight_OI), change.v.to(weight_OI)
    noise = rounding * golden.sketches[name].norm / weight_OI.numel() ** 0.5
    found.share[name] = (float(u @ weight_OI @ v) - change.base) / change.strength
    found.unsure[name] = 0.02 + 8 * noise / abs(change.strength)


def _explains(found: Examination, golden: Golden, name: str, numbers: Sequence[float]) -> bool:
    """Whether base + share * change is what the sketch shows."""
    expected, base, share = golden.sketches[name], golden.changes[name].numbers, found.share[name]
    left = max(abs(seen - b - share * (now - b)) for seen, now, b in zip(numbers, expected.numbers, base, strict=True))
    moved = max(abs(now - b) for now, b in zip(expected.numbers, base, strict=True))
    return left <= found.allowed * expected.norm * max(1.0, abs(share)) + found.unsure[name] * moved


def _rows(expected_V: Tensor, embedding_VD: Tensor, allowed: float) -> list[int]:
    """Tokens whose row has changed by more than rounding does."""
    count = min(len(expected_V), len(embedding_VD))
    seen_V = row_view(embedding_VD[:count])
    size_V = embedding_VD[:count].float().norm(dim=-1).clamp(min=float(expected_V.abs().median()) * 1e-3 + 1e-9)
    return torch.nonzero((seen_V - expected_V[:count]).abs() > allowed * size_V)[:, 0].tolist()


def modules(names: Iterable[str], most: int = 3) -> str:
    """Names of tensors for a sentence."""
    listed = [name.removesuffix(".weight") for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def rounding_of(stored: str, more: Mapping[str, float]) -> float:
    """The relative error of a type, of safetensors or (in `more`) of GGUF."""
    return ROUNDING.get(stored, more.get(stored, 0.1))
