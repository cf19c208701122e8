"""A short trial of a run on this machine: a few micro-batches forward and backward, timed; nothing moves and nothing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from hone.recipe.run import prepare_run
from hone.train.engine import Engine

SECONDS = 4.0
"""How long micro-batches are timed, after one that is not."""


def tokens_per_second(raw: Mapping[str, Any]) -> float:
    """The speed of forward and backward on the run's own first micro-batches. Raises what `hone train` would raise before it starts."""
    from hone.data.batching import micro_batches

    run = prepare_run(raw, Console(quiet=True))
    engine = Engine(run.policy, run.recipe.optim)
    engine.policy.model.train()
    some = [run.prepared.groups[i] for i in range(min(len(run.prepared.groups), run.recipe.optim.batch_size))]
    batches = micro_batches(some, run.recipe.hardware.token_budget or 2048)
    engine.forward_backward(batches[:1], run.recipe.objective)
    tokens, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        tokens += engine.forward_backward(batches, run.recipe.objective).tokens
        engine.forget()
    return tokens / (time.perf_counter() - started)
