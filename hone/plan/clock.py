"""Time, energy, money and disk of a run, from its tokens and the speed of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from hone.plan.layers import Adapters
from hone.plan.machines import Machine
from hone.plan.shapes import ModelFacts

UNCERTAIN = (0.6, 1.8)
"""Without a measurement, the true time lies between these multiples of the estimate."""
MEASURED = (0.9, 1.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What the processor has to do."""

    tokens: float
    """Tokens trained on, all epochs."""
    eval_tokens: float
    mean_length: float
    reads: float
    """Learned tokens, all epochs."""


@dataclass(frozen=True, slots=True)
class Time:
    """Seconds with a range, and what was assumed. Energy in kWh; money in the unit of the price, None without one."""

    seconds: float
    low: float
    high: float
    basis: str
    kwh: float | None
    money: float | None


def operations(facts: ModelFacts, adapters: Adapters, effort: Effort, *, recompute: bool) -> float:
    """Floating-point operations: two for each weight and token forward, as many for each kind of gradient; attention by length."""
    blocks = _active(facts)
    head = facts.vocab * facts.hidden
    attention = 2 * effort.mean_length * facts.heads * facts.head_dim * facts.layers
    moves_all = adapters.trainable > adapters.added
    passes = (3 if moves_all else 2) + (1 if recompute else 0)
    trained = effort.tokens * (2 * passes * blocks + 3.5 * attention) + effort.reads * (6 if moves_all else 4) * head
    added = effort.tokens * 6 * adapters.added
    return trained + added + effort.eval_tokens * (2 * blocks + attention + 2 * head * effort.reads / max(1.0, effort.tokens))


def _active(facts: ModelFacts) -> float:
    """Weights that a token meets, embeddings left out; of experts only those that are chosen, taken as eight."""
    embeddings = facts.vocab * facts.hidden * (1 if facts.tied else 2)
    blocks = facts.parameters - embeddings
    if not facts.experts:
        return max(blocks, facts.layers * facts.hidden)
    return blocks * min(1.0, 8 / facts.experts)


def duration(
    work: float, tokens: float, machine: Machine, *, speed: float | None = None, price: float | None = None, kwh_price: float | None = None
) -> Time | None:
    """From measured tokens a second where there are some, else from the machine's table; None where neither is known."""
    if speed is not None:
        seconds, (low, high), basis = tokens / speed, MEASURED, f"measured: {speed:,.0f} tokens a second"
    elif machine.flops is not None:
        reached = machine.flops * machine.utilisation
        seconds, (low, high) = work / reached, UNCERTAIN
        basis = f"not measured: {reached / 1e12:.3g} TFLOP/s assumed on {machine.name}; --probe measures"
    else:
        return None
    hours = seconds / 3600
    kwh = machine.watts * hours / 1000 if machine.watts is not None else None
    money = None if price is None and kwh_price is None else hours * (price or 0.0) + (kwh or 0.0) * (kwh_price or 0.0)
    return Time(seconds, seconds * low, seconds * high, basis, kwh, money)


def disk(facts: ModelFacts, adapters: Adapters, *, keep: int, width: int) -> dict[str, int]:
    """Bytes on disk: the checkpoints at their most, the artifact, and what it becomes when merged."""
    moving = adapters.trainable
    one = moving * 12 + 65536
    artifact = adapters.added * 4 if adapters.added else facts.parameters * width
    return {"checkpoints": (keep + 2) * one, "artifact": artifact, "merged": facts.parameters * 2}
