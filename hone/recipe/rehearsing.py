"""The rehearsal of a run: its heaviest micro-batch, its heaviest evaluation, and a save, before anything is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hone.core.events import Events
from hone.objectives import Objective
from hone.recipe.feed import Feed
from hone.train.engine import Engine
from hone.train.rehearsal import Foreseeable, rehearse, rehearse_save


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a rehearsal writes, and whom it tells."""

    folder: Path
    base: Mapping[str, str]
    events: Events


def rehearsal(engine: Engine, fed: Feed, objective: Objective, stage: Stage) -> None:
    """Let fail now what would fail later. Raises M091 (memory), F018 and what saving raises. Sources that cannot tell are left out."""
    if not isinstance(fed.source, Foreseeable):
        return
    worst = fed.source.worst()
    seconds = rehearse(engine, worst, objective, evaluate=fed.hardest)
    saved = engine.world.main and rehearse_save(engine, stage.folder, partial(_artifact, engine, stage))
    tokens = sum(len(batch.tokens_T) for batch in worst)
    stage.events.emit("rehearsed", tokens=tokens, saved=saved, seconds=round(seconds, 3))


def _artifact(engine: Engine, stage: Stage, place: Path) -> None:
    place.mkdir()
    engine.policy.save(place, base=stage.base)
