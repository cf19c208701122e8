"""Out of memory in the middle of a step: what it looks like, and smaller micro-batches for the same gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hone.core.errors import HoneError
from hone.core.types import Batch
from hone.data.splitting import split

SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_cpu")
"""What torch's allocators say, in lower case; only CUDA's has a type of its own."""


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that there was too little memory, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


def within(batches: Iterable[Batch], limit: int | None, *, inside_groups: bool) -> list[Batch]:
    """The same batches, those of more than `limit` tokens in pieces. What cannot be cut stays as it is."""
    made: list[Batch] = []
    waiting = list(batches)[::-1]
    while waiting:
        batch = waiting.pop()
        halves = split(batch, inside_groups=inside_groups) if limit is not None and len(batch.tokens_T) > limit else None
        if halves is None:
            made.append(batch)
        else:
            waiting += halves[::-1]
    return made


def smaller(batch: Batch, *, inside_groups: bool) -> int:
    """The limit to try after a batch was too large. Raises M091 where it cannot be cut any more."""
    halves = split(batch, inside_groups=inside_groups)
    if halves is None:
        where = ", ".join(map(str, batch.origins[:4]))
        what = f"there is too little memory for a single group of {len(batch.tokens_T):,} tokens"
        raise HoneError("M091", what, where=where, fix="`hone plan` with the same arguments lists what would fit")
    return max(max(len(half.tokens_T) for half in halves), len(batch.tokens_T) // 2)
