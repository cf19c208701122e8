"""Ranks for tests: threads of this process, each with its own end of a gloo ring, for two processes would import torch twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist

from hone.core.world import World

T = TypeVar("T")


def together(size: int, work: Callable[[World], T]) -> list[T]:
    """What each of some ranks returns."""
    store, rings, found = dist.HashStore(), {}, dict[int, T]()

    def rank(number: int) -> None:
        rings[number] = dist.ProcessGroupGloo(store, number, size, timedelta(seconds=300))
        found[number] = work(World(number, size, rings[number]))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(size)]
