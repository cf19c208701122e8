"""The `eval` and `output` sections of a run file."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from hone.core.config import settings


@settings
class EvalSettings:
    """How the run is watched on data that it never trains on."""

    every: Annotated[int, Ge(1)] | None = None
    """Steps between evaluations of the held-out loss. None makes about five in the run."""
    max_rows: Annotated[int, Ge(1)] | None = 512
    """At most this many held-out rows for each evaluation. None takes all."""
    patience: Annotated[int, Ge(1)] | None = None
    """Stop after this many evaluations in a row without a better held-out loss. None never stops early."""
    keep_best: bool = False
    """End with the weights of the best held-out loss instead of the last ones."""
    samples: tuple[str, ...] = ()
    """Prompts that the model answers at every evaluation, into the events and the report."""
    max_new_tokens: Annotated[int, Ge(1)] = 64
    """Longest sampled answer."""


@settings
class OutputSettings:
    """Where results go."""

    folder: str | None = None
    """The run folder. None names one under runs/ after the model, the objective and the data."""
    save_every: Annotated[int, Ge(1)] | None = None
    """Steps between checkpoints. None makes about ten in the run."""
    keep: Annotated[int, Ge(1)] = 2
    """Checkpoints kept besides the best."""
    log_every: Annotated[int, Ge(1)] = 1
    """Steps between lines of metrics.jsonl."""
    trackers: tuple[str, ...] = ()
    """Also log to: tensorboard, wandb, trackio, mlflow."""
