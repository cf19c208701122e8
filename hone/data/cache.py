"""Holds very many token sequences in little memory: four bytes a token, and weights as runs."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from itertools import groupby, pairwise

from hone.core.types import Facts, Group, Origin
from hone.core.types import Sequence as Tokens
from hone.data.lazy import LazyGroups


class Cache:
    """Groups, written once and read as often as wanted. Facts may be numbers, not lists."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._starts = array("q", [0])
        self._runs = array("i")
        self._values = array("d")
        self._run_starts = array("q", [0])
        self._first = array("q", [0])
        """Index of the first sequence of each group, and of the one after the last."""
        self._facts: dict[int, Facts] = {}
        self._origins: list[Origin] = []

    def __len__(self) -> int:
        return len(self._first) - 1

    def append(self, group: Group) -> int:
        """Add a group and return its index."""
        for sequence in group:
            self._tokens.extend(sequence.tokens)
            self._starts.append(len(self._tokens))
            for value, run in groupby(sequence.weights):
                self._values.append(value)
                self._runs.append(sum(1 for _ in run))
            self._run_starts.append(len(self._runs))
            if sequence.facts:
                self._facts[len(self._starts) - 2] = sequence.facts
        self._first.append(len(self._starts) - 1)
        self._origins.append(group[0].origin)
        return len(self) - 1

    def group(self, index: int) -> Group:
        """One group, as it was added."""
        return tuple(self._sequence(i, self._origins[index]) for i in range(self._first[index], self._first[index + 1]))

    def _sequence(self, index: int, origin: Origin) -> Tokens:
        start, end = self._starts[index : index + 2]
        weights: list[float] = []
        for run in range(*self._run_starts[index : index + 2]):
            weights += [self._values[run]] * self._runs[run]
        return Tokens(self._tokens[start:end].tolist(), weights, dict(self._facts.get(index, {})), origin)

    def hash(self, indices: Iterable[int]) -> str:
        """SHA-256 of what some groups say and teach, in their order."""
        digest = hashlib.sha256()
        for index in indices:
            first, last = self._first[index], self._first[index + 1]
            for columns, starts in ((self._tokens, self._starts), (self._runs, self._run_starts), (self._values, self._run_starts)):
                for start, end in pairwise(starts[first : last + 1]):
                    digest.update(columns[start:end].tobytes())
                    digest.update(b"/")
        return digest.hexdigest()


class Groups(LazyGroups):
    """Some groups of a cache, in an order of their own: reads like a list and holds only numbers."""

    def __init__(self, cache: Cache, indices: Iterable[int]) -> None:
        self._cache, self._indices = cache, array("q", indices)

    def __len__(self) -> int:
        return len(self._indices)

    def at(self, index: int) -> Group:
        return self._cache.group(self._indices[index])

    def hash(self) -> str:
        """SHA-256 of the tokens and weights of all groups, in order."""
        return self._cache.hash(self._indices)
