"""Fills in what a recipe left open, each value with its reason. Facts in, settings out; no model is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Advice(NamedTuple):
    """One setting that was left open."""

    key: str
    value: Any
    reason: str


class Facts(NamedTuple):
    """What the adviser knows about a run."""

    rows: int
    """Groups to train on."""
    median_tokens: int
    hidden_size: int
    device: str
    learning_rate: float
    """Where the tuning method likes to start."""
    pace: float = 1.0
    """Factor of the objective on it, for models about 4096 wide."""


MOST = 0.5
"""Largest share of a method's usual rate for objectives that want small steps."""
WIDE = 4096
"""Width of the models for which preference methods' learning rates are published."""
NARROW = 2048
"""Models narrower than this take larger steps: Adam's best rate goes as one over the width (arXiv 2203.03466)."""


def fill(settings: Mapping[str, Mapping[str, Any]], facts: Facts) -> list[Advice]:
    """Values for all settings that are None and must not stay so, in the order of their dependence."""
    found: list[Advice] = []
    method, optim = settings["tuning"]["method"], settings["optim"]
    if optim["learning_rate"] is None:
        found.append(_learning_rate(str(method), str(settings["objective"]["name"]), facts))
    epochs = optim["epochs"]
    if epochs is None and optim["max_steps"] is None:
        found.append(_epochs(facts.rows))
        epochs = found[-1].value
    steps = total_steps(facts.rows, int(optim["batch_size"]), epochs, optim["max_steps"])
    fifth, tenth = max(1, math.ceil(steps / 5)), max(1, math.ceil(steps / 10))
    if settings["eval"]["every"] is None:
        found.append(Advice("eval.every", fifth, f"about five evaluations in {steps} steps"))
    if settings["output"]["save_every"] is None:
        found.append(Advice("output.save_every", tenth, f"about ten checkpoints in {steps} steps"))
    if settings["hardware"]["token_budget"] is None:
        found.append(_token_budget(facts))
    return found


def _learning_rate(method: str, objective: str, facts: Facts) -> Advice:
    """The method's usual start; less for objectives that want small steps, which may be larger the narrower the model is."""
    if facts.pace == 1.0:
        times = max(1.0, NARROW / facts.hidden_size)
        wide = f", times {times:g} for a model only {facts.hidden_size} wide" if times > 1 else ""
        return Advice("optim.learning_rate", float(f"{facts.learning_rate * times:.1e}"), f"where '{method}' usually starts{wide}")
    pace = min(MOST, facts.pace * max(1.0, WIDE / facts.hidden_size))
    rate = float(f"{facts.learning_rate * pace:.1e}")
    reason = f"{pace:.3g} of where '{method}' usually starts: {objective} wants small steps, at a width of {facts.hidden_size}"
    return Advice("optim.learning_rate", rate, reason)


def total_steps(rows: int, batch_size: int, epochs: float | None, max_steps: int | None) -> int:
    """Optimiser steps of a run."""
    return int(max_steps) if max_steps is not None else max(1, round((epochs or 1.0) * math.ceil(rows / batch_size)))


def _epochs(rows: int) -> Advice:
    if rows < 1000:
        return Advice("optim.epochs", 3.0, f"{rows} rows: a few passes, or they are hardly seen")
    return Advice("optim.epochs", 1.0, f"{rows} rows: one pass, more tends to memorise")


def _token_budget(facts: Facts) -> Advice:
    if facts.device == "cpu":
        budget = 2048 if facts.hidden_size <= 512 else 1024
        budget = max(budget, facts.median_tokens)
        return Advice("hardware.token_budget", budget, "on a CPU a micro-batch should stay in the cache")
    return Advice("hardware.token_budget", 16384, "matrix products saturate at about 8k tokens, and attention is packed")
