"""Findings about how much was learned: too well by heart, too little, too briefly, in too little room, or at the price of the rest."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from hone.plan.doctor.base import CERTAIN, LIKELY, POSSIBLE, Found, Remedy, Unknown, finding
from hone.plan.doctor.chart import Chart

GUIDE = "fine-tuning guide, over- and underfitting"
UNSLOTH = "Unsloth docs, hyperparameters guide"
REGRET = "LoRA Without Regret (Thinking Machines, 2025)"
BANDS = (
    (0.2, "below 0.2: likely learned by heart"),
    (0.5, "below 0.5: good, or close to learned by heart"),
    (1.0, "0.5 to 1: usual for good runs"),
)
"""The field's bands for the training loss on learned tokens of given answers. They interpret; the held-out loss decides."""
RISE, GAP = 0.03, 0.75
"""Rise of the held-out loss over its best, as a share, that is no accident of the last evaluation; and the share of it that the training
loss is at most."""
STEEP = 0.05
"""Share of the base model's loss that still goes away in the last third of a run that ends too early."""
LITTLE = 0.35
"""Share of the base model's loss: who removes less has learned little of the form of the answers alone."""
BITS = 2.0
"""What a trainable weight holds, in bits."""
DRIFT = 1.2
"""How much less likely, in nats, text that the base itself writes may become, as a share of its own surprise at it."""


def band(loss: float) -> str:
    """What the field says of such a training loss."""
    return next((text for below, text in BANDS if loss < below), "above 1: little is learned yet, or the task leaves much open")


def both_rates(chart: Chart) -> tuple[Remedy, ...]:
    """Where the guide says "test both", both are tested: half and twice the rate."""
    rate = chart.rate
    if rate is None:
        return ()
    arms: tuple[dict[str, Any], ...] = tuple({"optim.learning_rate": float(f"{rate * factor:.1e}")} for factor in (0.5, 2))
    return (Remedy("test half and twice the learning rate side by side", arms=arms),)


def shorter(chart: Chart, step: float) -> Remedy:
    """The same run, ended where it was best."""
    return Remedy(
        f"stop at step {step:,.0f}, where the held-out loss was lowest, and keep the best weights",
        {"optim.epochs": None, "optim.max_steps": max(1, int(step)), "eval.keep_best": True, "eval.every": max(1, int(step) // 5)},
    )


@finding("H001", "overfitting", source=f"{GUIDE}; {UNSLOTH}")
def overfitting(chart: Chart) -> Found | Unknown | None:
    """The held-out loss rises from its best while the training loss keeps falling."""
    if chart.reinforces:
        return None
    best, late, early = chart.best, chart.late(), chart.early()
    if best is None or len(chart.held) < 4:
        return Unknown("at least four evaluations of the held-out loss (data.held_out, eval.every)")
    last, base = chart.held[-1], chart.base or chart.held[0]
    if late is None or early is None or late > min(early, best[1]) or late > 0.9 * base:
        return None
    if chart.shaken or last < best[1] * (1 + RISE) or late > GAP * last:
        return None
    by_heart = late < 0.2
    return Found(
        f"it learns by heart: the held-out loss was best at step {best[0]:,.0f} and has risen by {100 * (last / best[1] - 1):.0f} % since",
        CERTAIN if last > best[1] * 1.1 else LIKELY,
        (
            f"held-out loss {best[1]:.3f} at its best, {last:.3f} at the end; base model {base:.3f}",
            f"training loss {late:.3f} ({band(late)})",
        ),
        mark=(best[0], "best"),
        remedies=(shorter(chart, best[0]), *both_rates(chart), *_restraint(chart, by_heart=by_heart)),
    )


def _restraint(chart: Chart, *, by_heart: bool) -> tuple[Remedy, ...]:
    """What else the guide advises against learning by heart, in its order."""
    batch, dropout = int(chart.number("optim.batch_size") or 16), chart["tuning.dropout"]
    found = [Remedy(f"batches of {2 * batch}", {"optim.batch_size": 2 * batch})]
    found.append(Remedy("mix in general conversations (data.train takes several files)"))
    if dropout == 0:
        found.append(Remedy("dropout 0.1 in the adapter", {"tuning.dropout": 0.1}))
    if not chart["optim.weight_decay"]:
        found.append(Remedy("weight decay 0.05", {"optim.weight_decay": 0.05}))
    if by_heart:
        found.append(Remedy("add rows: hone synth writes more from documents, hone data stats shows repeats"))
    return tuple(found)


@finding("H002", "underfitting", source=GUIDE, live=False)
def underfitting(chart: Chart) -> Found | Unknown | None:
    """Little of the base model's loss is gone, on training and held-out rows alike."""
    gain, late = chart.gain, chart.late()
    if chart.reinforces or not chart.imitates or chart.objective == "cpt":
        return None
    if gain is None or late is None:
        return Unknown("the held-out loss of the base model and of the end (data.held_out)")
    if not 0.02 < gain < 0.15 or late < 0.5 or chart.base is None or chart.base < 0.5:
        return None
    more = Remedy("three times the steps", _longer(chart, 3))
    return Found(
        f"hardly anything was learned: {100 * gain:.0f} % of the base model's held-out loss is gone",
        POSSIBLE,
        (f"held-out loss {chart.base:.3f} before, {chart.held[-1]:.3f} after; training loss {late:.3f} ({band(late)})",),
        remedies=(*both_rates(chart), more, *_larger_rank(chart)),
    )


def _longer(chart: Chart, factor: int) -> dict[str, Any]:
    total = chart.total or chart.steps
    return {"optim.epochs": None, "optim.max_steps": factor * total, "eval.every": max(1, factor * total // 6)}


@finding("H006", "too few steps", source=f"{GUIDE}: 1 to 3 epochs", live=False)
def too_few_steps(chart: Chart) -> Found | Unknown | None:
    """The run ends while the held-out loss still falls steeply."""
    if chart.reinforces or not chart.imitates:
        return None
    held, base = chart.series.get("eval_loss", ()), chart.base
    if base is None or len(held) < 3:
        return Unknown("the held-out loss of the base model and two evaluations more")
    steps, passes = chart.steps, chart.steps / chart.epoch_steps if chart.epoch_steps else None
    before = [value for step, value in held if step <= steps * 2 / 3][-1]
    still = (before - held[-1][1]) / base
    brief = passes is not None and passes < 0.5
    if chart.shaken or (chart.times or 1) > 4 or still < (STEEP / 2 if brief else STEEP) or (chart.gain or 0) < 0.02 or (passes or 0) > 2.5:
        return None
    factor = max(3, math.ceil(1 / passes)) if passes else 3
    said = f" ({passes:.2g} passes over the data)" if passes is not None else ""
    return Found(
        f"it stopped too early: after {steps:,} steps{said} the held-out loss was still falling",
        LIKELY if brief or still > 2 * STEEP else POSSIBLE,
        (
            f"the last third of the run took away {100 * still:.0f} % of the base model's loss",
            f"held-out loss {base:.3f} at the start, {held[-1][1]:.3f} at the end",
        ),
        mark=(float(steps), "end"),
        remedies=(Remedy(f"{factor} times as many steps", _longer(chart, factor)), *both_rates(chart)),
    )


@finding("H007", "rank too small", source=f"{GUIDE}; {REGRET}: capacity of about two bits a weight", live=False)
def too_small_rank(chart: Chart) -> Found | Unknown | None:
    """The loss rests far above what the steps could reach, and the adapter has less room than the answers need."""
    if chart.full or not chart.imitates or chart.number("tuning.rank") is None:
        return None
    moving, tokens, gain, rate, advised = chart.fact("trainable"), chart.fact("learned_tokens"), chart.gain, chart.rate, chart.advised
    if moving is None or tokens is None or gain is None or chart.base is None:
        return Unknown("how many weights move, how many tokens are learned, and the base model's held-out loss")
    wanted, room = tokens * chart.base / math.log(2), BITS * moving
    slow = rate is None or advised is None or rate < advised / 3
    still = _falls(chart)
    if gain > LITTLE or gain < -0.02 or room > wanted or slow or still > STEEP:
        return None
    spread = chart.measured("rank_use")
    used = (f"the adapter uses {100 * spread:.0f} % of its rank",) if spread is not None else ()
    return Found(
        f"the adapter is too small for these answers: {moving:,.0f} weights, and only {100 * gain:.0f} % of the loss is gone",
        LIKELY,
        (f"about {short(wanted)} bits to learn, room for about {short(room)}", f"the loss has come to rest at {chart.held[-1]:.3f}", *used),
        remedies=_larger_rank(chart),
    )


def _falls(chart: Chart) -> float:
    """Share of the base model's loss that the last third of the evaluations took away."""
    held = chart.held
    third = max(1, len(held) // 3)
    return (held[-1 - third] - held[-1]) / (chart.base or 1.0) if len(held) > third else 0.0


def _larger_rank(chart: Chart) -> tuple[Remedy, ...]:
    rank = chart.number("tuning.rank")
    if rank is None:
        return ()
    larger = max(16, 2 * int(rank))
    change: dict[str, Any] = {"tuning.rank": larger, "tuning.targets": "all-linear", "tuning.layers": None}
    if chart["tuning.alpha"] is not None:
        change["tuning.alpha"] = 2.0 * larger
    return (Remedy(f"rank {larger} on all linear layers, alpha at least as large", change),)


@finding("H017", "forgetting", source="catastrophic forgetting: arXiv 2308.08747; LoRA forgets less: arXiv 2405.09673", live=False)
def forgetting(chart: Chart) -> Found | Unknown | None:
    """Text that the base model itself writes has become unlikely."""
    drift = chart.measured("drift")
    if drift is None:
        return Unknown("what the model says of the base model's own text: hone doctor --probe measures it")
    base = max(0.5, chart.measured("drift_base") or 0.0)
    if drift < DRIFT * base:
        return None
    rate = chart.rate
    slower = (Remedy("a third of the learning rate", {"optim.learning_rate": float(f"{rate / 3:.1e}")}),) if rate else ()
    lora = (
        (Remedy("adapters instead of all weights", {"tuning": {"method": "lora", "rank": 16}, "optim.learning_rate": None}),)
        if chart.full
        else ()
    )
    return Found(
        f"it has forgotten: text of the base model's own became less likely by {drift:.2f} nats a token",
        CERTAIN if drift > 2 * DRIFT * base else LIKELY,
        (f"the base gives its own text {base:.2f} nats a token, this model {base + drift:.2f}",),
        curves=("eval_loss",),
        remedies=(*lora, *slower, Remedy("mix in general text or conversations (data.train takes several files)")),
    )


def short(value: float) -> str:
    """A count with its unit."""
    return next((f"{value / size:.3g} {unit}" for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= size), f"{value:.0f}")


def rises(values: list[float]) -> int:
    """How many times in a row a curve has risen at its end."""
    count = 0
    for before, after in reversed(list(pairwise(values))):
        if after <= before:
            break
        count += 1
    return count
