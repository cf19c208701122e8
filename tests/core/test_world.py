"""Ranks that talk."""

from __future__ import annotations

import torch

from hone.core.world import World
from tests.ranks import together


def test_ranks_hear_each_other_in_order() -> None:
    assert together(3, lambda world: world.texts("wörter" * world.rank)) == [["", "wörter", "wörterwörter"]] * 3
    assert World().texts("alone") == ["alone"]


def test_sums_are_of_all_ranks_and_of_every_type() -> None:
    def work(world: World) -> list[float]:
        wide, narrow = torch.full((2,), world.rank + 1.0, dtype=torch.float64), torch.full((1,), 10.0 * world.rank)
        world.sum_([wide, narrow])
        return [*wide.tolist(), *narrow.tolist()]

    assert together(2, work) == [[3.0, 3.0, 10.0]] * 2
