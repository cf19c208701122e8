"""The loss of each held-out row at the end of a run (or of a part of it), so that runs can be compared row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch

from hone.core.types import Group, Origin
from hone.core.world import World
from hone.data.batching import micro_batches, pack
from hone.data.sharing import fill, size
from hone.models.policy import Policy, evaluating
from hone.models.portions import by_group
from hone.objectives import Objective
from hone.train.stats import step_statistics

Sums = dict[str, tuple[float, ...]]


class Kept(NamedTuple):
    """The rows that a run measures itself on."""

    rows: tuple[str, ...] = ()
    data: str = ""
    """SHA-256 of their tokens and weights, in order."""

    @classmethod
    def of(cls, rows: Iterable[tuple[Origin, Any]]) -> Kept:
        """Rows with what is asked of them, as plain lists of numbers."""
        digest, origins = hashlib.sha256(), []
        for origin, asked in rows:
            origins.append(str(origin))
            digest.update(json.dumps(asked).encode())
        return cls(tuple(origins), digest.hexdigest())


NOTHING = Kept()


def kept_groups(groups: Sequence[Group]) -> Kept:
    """Held-out groups as rows."""
    return Kept.of((group[0].origin, [(sequence.tokens, sequence.weights) for sequence in group]) for group in groups)


@torch.no_grad()
def sums_by_row(policy: Policy, groups: Sequence[Group], objective: Objective, budget: int, *, aside: Sequence[Group] = ()) -> Sums:
    """The objective's loss, its metrics and its units for each group, in their order.

    Groups share micro-batches, unless the objective looks at a whole step: then each is asked alone, with the statistics of all.
    """
    together = fill([size(group) for group in groups], budget) if not objective.stats else [[i] for i in range(len(groups))]
    batches = [pack([groups[i] for i in some]) for some in together]
    stats = step_statistics(policy, [*batches, *micro_batches(aside, budget, aside=True)], objective, World())
    rows: list[dict[str, float]] = [{"units": 0.0, "loss": 0.0} for _ in groups]
    with evaluating(policy.model):
        for some, batch, step in zip(together, batches, stats, strict=False):
            if not len(batch.read_N):
                continue
            signals = policy.signals(batch.to(policy.device), objective.needs)
            signals.step = step
            parts = by_group(signals, batch) if len(some) > 1 else [signals]
            for i, own in zip(some, parts, strict=True):
                rows[i] = _told(objective, own)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name, 0.0) for row in rows) for name in names}


def _told(objective: Objective, signals: Any) -> dict[str, float]:
    if not len(signals.batch.read_N):
        return {"units": signals.batch.count(objective.unit), "loss": 0.0}
    loss = objective(signals)
    sums = {name: float(value) for name, value in {"loss": loss.total, **loss.metrics}.items()}
    return {"units": signals.batch.count(objective.unit), **sums}
