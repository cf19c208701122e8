"""What a contender must have computed before its speed counts: the same training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LOSS, NORM, GATED_STEPS = 1e-5, 1e-3, 50
APART = 1e-4
"""Absolute difference of losses made of sums of hundreds of log-probabilities, which fp32 rounds at this size; some are near zero."""
FLOOR = 1e-3
"""Difference of losses, in nats, that bf16 is always allowed."""

Run = dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """One check of one contender."""

    contender: str
    what: str
    found: float
    bound: float
    passed: bool

    def __str__(self) -> str:
        return f"{'ok    ' if self.passed else 'FAILED'}  {self.contender:22s} {self.what}: {self.found:.3g} (at most {self.bound:.3g})"


def check(run: Run, reference: Run, peers: list[Run]) -> list[Gate]:
    """Gates of a run. `reference` is TRL in fp32; `peers` are TRL's runs of the same precision."""
    name = f"{run['plan']['name']} {run['dtype']}"
    moving = float(len(set(map(str, run["trainable"].items())) ^ set(map(str, reference["trainable"].items()))))
    gates = [
        _at_most(name, "trainable parameters that differ", moving, 0.0),
        _at_most(name, "steps whose gradient norm is not above zero", float(sum(not norm > 0 for norm in run["norms"])), 0.0),
    ]
    if run["dtype"] == "fp32":
        steps = f"{len(_pairs(run, reference))} steps"
        if run["plan"]["method"] == "sft":
            worst = max(abs(a - b) / abs(b) for a, b in _pairs(run, reference))
            gates.append(_at_most(name, f"relative difference of losses, {steps}", worst, LOSS))
        else:
            gates.append(_at_most(name, f"difference of losses, {steps}", gap(run, reference), APART))
        first = abs(run["norms"][0] - reference["norms"][0]) / reference["norms"][0]
        return [*gates, _at_most(name, "relative difference of the first gradient norm", first, NORM)]
    if run["plan"]["library"] == "trl":
        return gates
    own = max(gap(peer, reference) for peer in peers)
    return [*gates, _at_most(name, "loss away from TRL fp32 (bound: TRL bf16's own distance + 1e-3)", gap(run, reference), own + FLOOR)]


def gap(run: Run, reference: Run) -> float:
    """Largest distance of two runs' losses, in nats."""
    return max(abs(a - b) for a, b in _pairs(run, reference))


def _pairs(run: Run, reference: Run) -> list[tuple[float, float]]:
    steps = min(GATED_STEPS, len(run["losses"]), len(reference["losses"]))
    return list(zip(run["losses"][:steps], reference["losses"][:steps], strict=True))


def _at_most(name: str, what: str, found: float, bound: float) -> Gate:
    return Gate(name, what, found, bound, found <= bound)
