"""Findings about weights that do not move."""

from __future__ import annotations

from typing import Any

from hone.plan.doctor.base import CERTAIN, LIKELY, Found, Remedy, Unknown, finding
from hone.plan.doctor.chart import Chart

FLAT = 0.002
"""Change of the held-out loss, as a share, below which nothing has happened."""


@finding("H012", "dead weights", source="a run that trains nothing: unslothai/unsloth notes, peft issues on frozen adapters")
def dead(chart: Chart) -> Found | Unknown | None:
    """There is no gradient, or the weights stay where they are, and the loss does not move."""
    norms, moved = chart.values("grad_norm"), chart.values("update_ratio")
    if len(norms) < 4 or not moved:
        return Unknown("four steps with their gradient's norm and the length of the step")
    if chart.reinforces:
        return None
    silent, still = max(norms) < 1e-6, max(moved) < 1e-6
    flat = chart.gain is None or abs(chart.gain) < FLAT
    if not (silent or still) or not flat or not any(chart.values("loss")):
        return None
    why = "there is no gradient" if silent else "the steps are too small to be steps"
    return Found(
        f"nothing moves: {why}",
        CERTAIN if chart.gain is not None else LIKELY,
        (
            f"largest gradient norm {max(norms):.1e}, longest step {100 * max(moved):.1e} % of the weights' size",
            *([f"the held-out loss changed by {100 * chart.gain:.2f} %"] if chart.gain is not None else []),
        ),
        curves=("grad_norm", "loss", "eval_loss"),
        remedies=_wake(chart),
    )


def _wake(chart: Chart) -> tuple[Remedy, ...]:
    """Settings that make an adapter move again."""
    rank, alpha, advised = chart.number("tuning.rank"), chart.number("tuning.alpha"), chart.advised
    found = []
    if rank is not None and alpha is not None and alpha < 0.01 * rank:
        found.append(Remedy(f"alpha {2 * int(rank)}, twice the rank", {"tuning.alpha": 2.0 * int(rank)}))
    if advised is not None and chart.rate is not None and chart.rate < advised / 4:
        found.append(Remedy(f"a learning rate of {advised:.1e}", {"optim.learning_rate": advised}))
    if chart["tuning.targets"] not in (None, "all-linear"):
        everywhere: dict[str, Any] = {"tuning.targets": "all-linear", "tuning.layers": None}
        found.append(Remedy("adapters on all linear layers", everywhere))
    return (*found, Remedy("look at what can move: hone train ... --dry-run prints how many weights do"))
