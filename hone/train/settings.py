"""The `optim`, `eval` and `output` sections of a run file."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt

from hone.core.config import settings


@settings
class OptimSettings:
    """How weights move."""

    name: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """adamw keeps two moments of each weight in fp32; adamw_8bit (bitsandbytes) in 8 bits, a quarter of the memory; the paged one
    also moves them out of a GPU's memory where that runs short."""
    learning_rate: Annotated[float, Gt(0), Lt(1)] | None = None
    """Peak learning rate. None lets the adviser choose: 2e-4 for adapters, 2e-5 for full tuning."""
    embedding_learning_rate: Annotated[float, Gt(0), Lt(1)] | None = None
    """Peak learning rate of the embeddings and the head, where they move; a half to a tenth of the other suits continued
    pre-training. None makes no difference."""
    batch_size: Annotated[int, Ge(1)] = 16
    """Sequences (or groups) of one optimiser step. Memory does not depend on it: the token budget decides that."""
    epochs: Annotated[float, Gt(0)] | None = None
    """Passes over the data. None means 1, unless max_steps is given."""
    max_steps: Annotated[int, Ge(1)] | None = None
    """Stop after this many optimiser steps. Not together with epochs."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up: to zero along a line or a cosine, or not at all."""
    warmup_ratio: Annotated[float, Ge(0), Lt(1)] = 0.05
    """Share of the steps in which the learning rate rises from zero to its peak."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Decoupled weight decay of matrices; vectors (norms, biases) are never decayed."""
    clip: Annotated[float, Gt(0)] | None = 1.0
    """Largest norm of the whole gradient. None does not clip."""
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Memory of the gradient's mean."""
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    """Memory of the gradient's square."""
    skip_limit: Annotated[int, Ge(1)] = 3
    """Stop after this many steps in a row whose loss or gradient is not finite."""


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
