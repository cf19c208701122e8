"""Findings about the learning rate: steps that are too large, too small, or that tear the model apart."""

from __future__ import annotations

from hone.plan.doctor.base import CERTAIN, LIKELY, POSSIBLE, Found, Remedy, Unknown, finding
from hone.plan.doctor.chart import Chart
from hone.plan.doctor.fit import both_rates

GUIDE = "fine-tuning guide, key parameters"
UNSLOTH = "Unsloth docs, hyperparameters guide"
FAR = 4.0
"""Times the advised rate beyond which the rate itself is suspect."""


def _slower(chart: Chart) -> tuple[Remedy, ...]:
    rate, advised = chart.rate, chart.advised
    if rate is None:
        return ()
    target = advised if advised is not None and advised < rate / 2 else rate / 5
    more = Remedy("clip the gradient's norm at 1", {"optim.clip": 1.0}) if chart["optim.clip"] is None else None
    slower = Remedy(f"a learning rate of {target:.1e} instead of {rate:.1e}", {"optim.learning_rate": float(f"{target:.1e}")})
    longer = Remedy("a longer warm-up", {"optim.warmup_ratio": 0.1}) if (chart.number("optim.warmup_ratio") or 0) < 0.1 else None
    return tuple(one for one in (slower, more, longer) if one is not None)


@finding("H003", "learning rate too high", source=f"{GUIDE}; {UNSLOTH}")
def too_high(chart: Chart) -> Found | Unknown | None:
    """The loss rises above where it began, or never gets below it, while the weights move far."""
    times, calm, start = chart.times, chart.calm, chart.start
    if chart.reinforces or start is None or len(chart.values("loss")) < 4:
        return None if chart.reinforces else Unknown("a few steps more")
    worse = chart.base is not None and len(chart.held) > 1 and chart.held[-1] > chart.base * 1.02
    fast = times is not None and times > FAR
    moved = (chart.middle("update_ratio") or 0) > 0.02
    torn = max(chart.calm) > 1.5 * start or (moved and (worse or times is None))
    stuck = fast and (chart.best_gain or 1.0) < 0.5 and (chart.late() or 0.0) > 1.0
    if not (chart.shaken or worse or stuck) or not (fast or torn) or (worse and not chart.shaken and (chart.late() or 0) < 0.5 * start):
        return None
    said = f"{times:.1f} times what suits this method and width" if times is not None else "too much for this model"
    return Found(
        f"the learning rate is too high: {chart.rate:.1e}, {said}" if chart.rate else "the learning rate is too high",
        CERTAIN if fast and (chart.shaken or worse) else LIKELY if chart.shaken else POSSIBLE,
        tuple(_told_of_height(chart, start, max(calm))),
        curves=("loss", "eval_loss", "grad_norm"),
        mark=(chart.series["loss"][calm.index(max(calm))][0], "peak") if chart.shaken else None,
        remedies=_slower(chart),
    )


def _told_of_height(chart: Chart, start: float, peak: float) -> list[str]:
    told = [f"training loss {start:.3f} in the first steps, {peak:.3f} at its peak"]
    if chart.base is not None and len(chart.held) > 1:
        told.append(f"held-out loss {chart.base:.3f} for the base model, {chart.held[-1]:.3f} at the end")
    if (ratio := chart.middle("update_ratio")) is not None:
        told.append(f"a step moves the weights by {100 * ratio:.2g} % of their size")
    return told


@finding("H004", "learning rate too low", source=f"{GUIDE}; {UNSLOTH}; defaults of trainers for full tuning", live=False)
def too_low(chart: Chart) -> Found | Unknown | None:
    """The weights hardly move and the loss hardly falls, at a rate far below what suits the method."""
    gain, times = chart.gain, chart.times
    if chart.reinforces or not chart.imitates:
        return None
    if gain is None or times is None:
        return Unknown("the held-out loss of the base model, and the model's width")
    if times > 1 / FAR or gain > 0.3 or gain < -0.02:
        return None
    advised = chart.advised
    assert advised is not None and chart.rate is not None
    ratio = chart.middle("update_ratio")
    return Found(
        f"the learning rate is too low: {chart.rate:.1e}, where {advised:.1e} suits this method and width",
        CERTAIN if times < 0.1 else LIKELY,
        (
            f"{100 * gain:.1f} % of the base model's held-out loss is gone after {chart.steps:,} steps",
            *([f"a step moves the weights by {100 * ratio:.2g} % of their size"] if ratio is not None else []),
        ),
        remedies=(Remedy(f"a learning rate of {advised:.1e}", {"optim.learning_rate": advised}), *both_rates(chart)),
    )


@finding("H005", "diverging loss", source=f"{GUIDE}: too high a rate does not converge")
def diverging(chart: Chart) -> Found | Unknown | None:
    """The loss fell and rises again, or numbers were not finite."""
    losses = chart.values("loss")
    if chart.reinforces or (len(losses) < 8 and not chart.skipped):
        return None if chart.reinforces else Unknown("eight steps")
    calm = chart.calm
    least, last = min(calm, default=0.0), calm[-1] if calm else 0.0
    low = calm.index(least) if calm else 0
    grown = last > 1.3 * least + 0.3 and low < 0.85 * len(calm)
    if not grown and not chart.skipped:
        return None
    told = [f"training loss {least:.3f} at its lowest, {last:.3f} at the end"]
    told += [f"{chart.skipped} steps moved nothing, since a number was not finite"] if chart.skipped else []
    return Found(
        "the loss runs away: it had fallen and is rising" if grown else "the loss runs away: numbers are no longer finite",
        CERTAIN if last > 2 * least or chart.skipped > 2 else LIKELY,
        tuple(told),
        curves=("loss", "eval_loss", "grad_norm"),
        mark=(chart.series["loss"][low][0], "lowest") if grown else None,
        remedies=_slower(chart),
    )
