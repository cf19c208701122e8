"""A fixed dataset as a source: the micro-batches of each optimiser step, a pure function of (seed, step)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hone.core.types import Batch, Group
from hone.data.batching import micro_batches
from hone.data.lazy import LazyGroups
from hone.data.sharing import fill, size


class Beside(LazyGroups):
    """For each group, one that `make` forms of it and its successor; the last one's successor is the first."""

    def __init__(self, groups: Sequence[Group], make: Callable[[Group, Group], Group]) -> None:
        self.groups, self.make = groups, make

    def __len__(self) -> int:
        return len(self.groups)

    def at(self, index: int) -> Group:
        return self.make(self.groups[index], self.groups[(index + 1) % len(self)])


class Offline:
    """Shuffled passes over groups. Nothing is remembered between steps, so a run resumes at any step for free.

    `step_groups` groups make one optimiser step; the last step of an epoch may hold fewer. `budget` is the number of
    tokens of a micro-batch and changes neither the steps nor their gradients.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        step_groups: int,
        budget: int,
        epochs: float = 1.0,
        max_steps: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.groups, self.step_groups, self.budget = groups, step_groups, budget
        self.aside: Sequence[Group] = ()
        self.seed, self.shuffle = seed, shuffle
        self.steps_per_epoch: int = max(1, math.ceil(len(groups) / step_groups))
        self.total_steps = max_steps or max(1, round(epochs * self.steps_per_epoch))
        self._order = lru_cache(maxsize=2)(self._permutation)

    def asking(self, aside: Sequence[Group]) -> Offline:
        """The same source, whose steps also bring, for each group, one that is only asked (see `Objective.aside`)."""
        assert len(aside) in (0, len(self.groups))
        self.aside = aside
        return self

    def __len__(self) -> int:
        return self.total_steps

    def _permutation(self, epoch: int) -> list[int]:
        order = list(range(len(self.groups)))
        if self.shuffle:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
        return order

    def chosen(self, step: int) -> list[int]:
        """Which groups make up a step, counted from 1."""
        epoch, index = divmod(step - 1, self.steps_per_epoch)
        return self._order(epoch)[index * self.step_groups : (index + 1) * self.step_groups]

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the step: nothing."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` told."""

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one step."""
        chosen = self.chosen(step)
        asked = [self.aside[i] for i in chosen] if self.aside else []
        return micro_batches([self.groups[i] for i in chosen], self.budget) + micro_batches(asked, self.budget, aside=True)

    def worst(self) -> list[Batch]:
        """The heaviest micro-batch of the whole plan, by its tokens."""
        sizes = [size(group) for group in self.groups]
        heaviest: list[int] = []
        for step in range(1, self.total_steps + 1):
            groups = self.chosen(step)
            for micro in fill([sizes[i] for i in groups], self.budget):
                candidate = [groups[i] for i in micro]
                if sum(sizes[i] for i in candidate) > sum(sizes[i] for i in heaviest):
                    heaviest = candidate
        return micro_batches([self.groups[i] for i in heaviest], 10**18)

    def steps(self, first: int = 1) -> Iterator[list[Batch]]:
        """The micro-batches of step `first` and of all that follow."""
        for step in range(first, self.total_steps + 1):
            yield self.batches(step)
