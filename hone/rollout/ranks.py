"""Several processes write one rollout together: each answers its share of the prompts, one judges, and all learn from all answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import asdict
from typing import Any

from hone.core.errors import HoneError
from hone.core.world import World
from hone.rollout.draft import Draft, Pen, draft_of
from hone.rollout.prompts import Prompt
from hone.rollout.rewards import Verdict


def shared(pen: Pen, world: World) -> Pen:
    """A pen that writes the part of this rank and returns the answers of every rank, in the order of the prompts.

    Neighbours stay together, since answers to one prompt are written together; each rank draws from a stream of its own.
    """
    if world.size == 1:
        return pen

    def write(prompts: Seq[Prompt], seed: int, sampling: dict[str, Any]) -> list[Draft]:
        first, end = (len(prompts) * rank // world.size for rank in (world.rank, world.rank + 1))
        mine = pen(prompts[first:end], seed + world.rank, sampling) if first < end else []
        return [draft_of(plain) for text in world.texts(json.dumps([asdict(draft) for draft in mine])) for plain in json.loads(text)]

    return write


def agreed(world: World) -> Callable[[Callable[[], Verdict]], Verdict]:
    """Lets rank 0 judge and tell the others, as a user's own reward need not say the same twice. Its HoneError is raised on all."""
    if world.size == 1:
        return lambda judge: judge()

    def agree(judge: Callable[[], Verdict]) -> Verdict:
        found = json.loads(world.texts(json.dumps(_heard(judge)) if world.main else "")[0])
        if "error" in found:
            code, what, where, fix = found["error"]
            raise HoneError(code, what, where=where, fix=fix)
        return Verdict(**found)

    return agree


def _heard(judge: Callable[[], Verdict]) -> dict[str, Any]:
    try:
        return asdict(judge())
    except HoneError as error:
        return {"error": (error.code, error.what, error.where, error.fix)}
