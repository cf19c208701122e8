"""Statistics of a whole optimiser step, worked out before it, so that no micro-batch and no rank sees only its own part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hone.core.types import Batch, StepStat
from hone.core.world import World
from hone.models.policy import Policy, evaluating
from hone.objectives.base import Objective


@torch.no_grad()
def step_statistics(policy: Policy, batches: Sequence[Batch], objective: Objective, world: World) -> list[Mapping[str, StepStat]]:
    """For every batch of a step, what `objective` wants to know of all of them; nothing for one without such wishes.

    Batches marked `aside` are asked where there are any, else those that are learned. Dropout is off. Ranks share the work,
    and each gets all of the result, in the order of the batches.
    """
    if not objective.stats:
        return [{} for _ in batches]
    asked = [i for i, batch in enumerate(batches) if batch.aside] or list(range(len(batches)))
    found: dict[int, dict[str, Tensor]] = {}
    device = policy.device
    with evaluating(policy.model):
        for i in asked[world.rank :: world.size]:
            if len(batches[i].read_N):
                found[i] = objective.statistics(policy.signals(batches[i].to(device), objective.needs))
    joined = {name: _joined([found.get(i, {}).get(name) for i in asked], world, device) for name in objective.stats}
    places = {i: place for place, i in enumerate(asked)}
    return [{name: _view(*stat, places.get(i)) for name, stat in joined.items()} for i in range(len(batches))]


def _joined(parts: Sequence[Tensor | None], world: World, device: torch.device) -> tuple[Tensor, list[int]]:
    """All parts end to end, on every rank, and where each begins. A part that another rank holds is None here."""
    sizes = torch.tensor([0 if part is None else len(part) for part in parts], dtype=torch.float64, device=device)
    world.sum_([sizes])
    starts = [0, *sizes.long().cumsum(0).tolist()]
    whole = torch.zeros(starts[-1], dtype=torch.float64, device=device)
    for part, start in zip(parts, starts, strict=False):
        if part is not None:
            whole[start : start + len(part)] = part.double()
    world.sum_([whole])
    return whole, starts


def _view(whole: Tensor, starts: Sequence[int], place: int | None) -> StepStat:
    """The statistic as one batch sees it; a batch that was not asked has no part in it."""
    return StepStat(whole, slice(0, 0) if place is None else slice(starts[place], starts[place + 1]))
