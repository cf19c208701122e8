"""The processes of a run. One process is the ordinary case; torchrun starts more."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class World:
    """Rank and size, and the one collective that training needs."""

    rank: int = 0
    size: int = 1
    ring: Any = None
    """A process group of torch.distributed to speak through; None is the one that every process has joined."""

    @classmethod
    def join(cls) -> World:
        """The world that torchrun describes in the environment, or a world of one."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def main(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes."""
        if self.size == 1:
            return flag
        import torch

        vote = torch.tensor([float(flag)])
        self.sum_([vote])
        return bool(vote.item())

    def texts(self, mine: str) -> list[str]:
        """What every rank says, in the order of the ranks."""
        if self.size == 1:
            return [mine]
        import torch

        said = mine.encode()
        length = torch.zeros(self.size, dtype=torch.float64)
        length[self.rank] = len(said)
        self.sum_([length])
        ends = [0, *length.long().cumsum(0).tolist()]
        whole = torch.zeros(ends[-1], dtype=torch.float64)
        whole[ends[self.rank] : ends[self.rank + 1]] = torch.tensor(list(said), dtype=torch.float64)
        self.sum_([whole])
        read = bytes(whole.long().tolist())
        return [read[start:end].decode() for start, end in pairwise(ends)]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add tensors over all ranks, in place, in one flat message for each type."""
        if self.size == 1:
            return
        import torch.distributed as dist
        from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

        by_type: dict[str, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(str(tensor.dtype), []).append(tensor)
        for members in by_type.values():
            flat = _flatten_dense_tensors(members)
            if self.ring is None:
                dist.all_reduce(flat)
            else:
                self.ring.allreduce([flat]).wait()
            for tensor, summed in zip(members, _unflatten_dense_tensors(flat, members), strict=True):
                tensor.copy_(summed)
