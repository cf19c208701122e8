"""Ranks that talk: threads of this process, each with its own end of a gloo ring."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from hone.core.world import World


def together(size: int, work: Any) -> list[Any]:
    """What each of some ranks returns."""
    store, rings, found = dist.HashStore(), {}, {}

    def rank(number: int) -> None:
        rings[number] = dist.ProcessGroupGloo(store, number, size, timedelta(seconds=30))
        found[number] = work(World(number, size, rings[number]))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(size)]


def test_ranks_hear_each_other_in_order() -> None:
    assert together(3, lambda world: world.texts("wörter" * world.rank)) == [["", "wörter", "wörterwörter"]] * 3
    assert World().texts("alone") == ["alone"]


def test_sums_are_of_all_ranks_and_of_every_type() -> None:
    def work(world: World) -> list[float]:
        wide, narrow = torch.full((2,), world.rank + 1.0, dtype=torch.float64), torch.full((1,), 10.0 * world.rank)
        world.sum_([wide, narrow])
        return [*wide.tolist(), *narrow.tolist()]

    assert together(2, work) == [[3.0, 3.0, 10.0]] * 2
