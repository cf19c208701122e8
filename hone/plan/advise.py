"""Fills in what a recipe left open, each value with its reason. Facts in, settings out; no model is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

HIDDEN, SLOPE = 4096, 1.08
"""The learning rate of an adapter is 2e-4 at this hidden size and falls with this power of it."""
FASTEST = 5e-3
COMPARING = 1 / 40
"""Rates of objectives that compare answers, or reward them, as a share of those that imitate: 5e-6 where imitation takes 2e-4."""
IMITATING = ("sft", "cpt", "dft", "distill", "kd", "gkd", "classify", "regress")


class Advice(NamedTuple):
    """One setting that was left open."""

    key: str
    value: Any
    reason: str


class Facts(NamedTuple):
    """What the adviser knows about a run."""

    rows: int
    """Groups to train on."""
    hidden_size: int
    learning_rate: float
    """Where the tuning method likes to start, on a model of 7 or 8 billion parameters."""
    pace: float = 1.0
    """Factor of the objective on it: those that compare or reward answers want small steps."""


def fill(settings: Mapping[str, Mapping[str, Any]], facts: Facts) -> list[Advice]:
    """Values for the settings that are None and must not stay so, in the order of their dependence."""
    found: list[Advice] = []
    optim = settings["optim"]
    if optim["learning_rate"] is None:
        found.append(learning_rate(facts.learning_rate, facts.hidden_size, pace=facts.pace))
    epochs = optim["epochs"]
    if epochs is None and optim["max_steps"] is None:
        found.append(passes(facts.rows))
        epochs = found[-1].value
    steps = total_steps(facts.rows, int(optim["batch_size"]), epochs, optim["max_steps"])
    fifth, tenth = max(1, math.ceil(steps / 5)), max(1, math.ceil(steps / 10))
    if settings["eval"]["every"] is None:
        found.append(Advice("eval.every", fifth, f"about five evaluations in {steps} steps"))
    if settings["output"]["save_every"] is None:
        found.append(Advice("output.save_every", tenth, f"about ten checkpoints in {steps} steps"))
    return found


def total_steps(rows: int, batch_size: int, epochs: float | None, max_steps: int | None) -> int:
    """Optimiser steps of a run."""
    return int(max_steps) if max_steps is not None else max(1, round((epochs or 1.0) * math.ceil(rows / batch_size)))


def learning_rate(start: float, hidden: int, *, pace: float = 1.0) -> Advice:
    """The method's rate, scaled to the model's width along one power law.

    It goes through 2e-4 at hidden size 4096 (7B and 8B: arXiv 2305.14314, and the practice of the field), gives 1e-4 at 8192
    (the same paper's value for 33B and 65B), and through 4e-3 at 256, the best of a sweep on the 5 M seedling.
    """
    scaled = start * (HIDDEN / hidden) ** SLOPE
    value = float(f"{min(scaled, max(FASTEST, start)) * pace:.1e}")  # virtual tokens want more than any matrix stands
    reason = f"{start:g} for 7B, scaled to hidden size {hidden} by (4096/{hidden})^{SLOPE}"
    return Advice("optim.learning_rate", value, reason + ("" if pace == 1 else f"; {pace:.3g} of it, as this objective wants small steps"))


def passes(rows: int) -> Advice:
    """Epochs by the number of rows: one to three."""
    if rows < 1000:
        return Advice("optim.epochs", 3.0, f"{rows} rows: a few passes, or they are hardly seen")
    return Advice("optim.epochs", 1.0, f"{rows} rows: one pass, more tends to memorise")
