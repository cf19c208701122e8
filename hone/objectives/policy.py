"""Objectives that reinforce what a policy wrote by how good it was: the sampled tokens, their advantages, and how far to go.

Facts: `advantage` (what a token taught, see `hone.rollout.credit`) and `old_logp` (its log-probability when it was written, in nats).
With r = exp(logp - old_logp), a clipped surrogate is -min(r A, clip(r, 1 - low, 1 + high) A). `kl` adds that many times the
divergence from the reference, by an estimator on the sampled token, and `entropy` takes away that many times the entropy; neither
costs anything at 0. `clipped` is the share of tokens (or answers) whose gradient the clip has stopped.

Shape legend: N reads, S sequences.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from torch import Tensor

from hone.core.types import Loss, Signals
from hone.objectives.base import objective

Positive = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]
Estimator = Literal["k1", "k2", "k3", "k3_weighted"]
FACTS = "advantage_N old_logp_N"
HELD = {"estimator": "kl"}
PACE = 0.05
"""Share of a method's usual learning rate at a width of 4096: the signal is noisy, and the policy must stay near those who wrote."""


def divergence(logp_N: Tensor, ref_logp_N: Tensor, estimator: Estimator) -> Tensor:
    """KL(policy || reference) estimated from the sampled token alone, in nats.

    k1 is unbiased and may be negative, and its gradient is zero on average, so it belongs into a reward and not into a loss. k2 has the
    right gradient. k3 is unbiased, never negative and of low variance; weighted by the importance ratio, which `_held` does for
    k3_weighted, its gradient is right too (arXiv 2512.02556).
    """
    if estimator == "k1":
        return logp_N - ref_logp_N
    if estimator == "k2":
        return 0.5 * (logp_N - ref_logp_N) ** 2
    return (ref_logp_N - logp_N).exp() - (ref_logp_N - logp_N) - 1


def surrogate(ratio: Tensor, advantage: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate loss, and 1 where the clip has stopped its gradient; of any shape."""
    clipped = ratio.clamp(1 - low, 1 + high)
    stopped = ((ratio > 1 + high) & (advantage > 0)) | ((ratio < 1 - low) & (advantage < 0))
    return -(ratio * advantage).minimum(clipped * advantage), stopped.to(ratio.dtype)


def _asks(*, kl: float, entropy: float) -> str:
    return " ".join(["logp"] + ["ref_logp"] * (kl > 0) + ["entropy"] * (entropy > 0))


def _ratio(s: Signals) -> Tensor:
    return (s.logp - s.facts["old_logp"].to(s.logp.dtype)).exp()


def _advantage(s: Signals) -> Tensor:
    return s.facts["advantage"].to(s.logp.dtype)


def _held(s: Signals, *, kl: float, estimator: Estimator, entropy: float) -> tuple[Tensor, dict[str, Tensor]]:
    """What keeps the policy near the reference and open, per read; and its parts, to be told."""
    parts: dict[str, Tensor] = {}
    held_N = s.logp.new_zeros(s.logp.shape)
    if kl:
        weight_N = _ratio(s) if estimator == "k3_weighted" else 1.0
        parts["kl"] = weight_N * divergence(s.logp, s.ref_logp, estimator)
        held_N = held_N + kl * parts["kl"]
    if entropy:
        parts["entropy"] = s.entropy
        held_N = held_N - entropy * parts["entropy"]
    return held_N, parts


def _by_answer(s: Signals, loss_N: Tensor, told: dict[str, Tensor]) -> Loss:
    """The mean of each answer's tokens, summed over answers."""
    return Loss(s.mean(loss_N).sum(), {name: s.mean(x_N.detach()).sum() for name, x_N in told.items()})


def _by_token(s: Signals, loss_N: Tensor, told: dict[str, Tensor]) -> Loss:
    """The sum over all tokens, so that each counts the same, whatever the length of its answer."""
    return Loss(s.sum(loss_N).sum(), {name: s.sum(x_N.detach()).sum() for name, x_N in told.items()})


@objective(needs=_asks, unit="sequence", facts=FACTS, pace=PACE, only=HELD)
def grpo(
    s: Signals, *, clip_low: Positive = 0.2, clip_high: Positive = 0.2,
    kl: Weight = 0.0, estimator: Estimator = "k3", entropy: Weight = 0.0,
) -> Loss:  # fmt: skip
    """Group-relative policy optimisation: clipped per token, averaged in each answer and then over answers (arXiv 2402.03300)."""
    loss_N, clipped_N = surrogate(_ratio(s), _advantage(s), clip_low, clip_high)
    held_N, told = _held(s, kl=kl, estimator=estimator, entropy=entropy)
    return _by_answer(s, loss_N + held_N, told | {"clipped": clipped_N})


@objective(needs=_asks, unit="sequence", facts=f"{FACTS} limit_S", pace=PACE, only=HELD)
def dr_grpo(
    s: Signals, *, clip_low: Positive = 0.2, clip_high: Positive = 0.2,
    kl: Weight = 0.0, estimator: Estimator = "k3", entropy: Weight = 0.0,
) -> Loss:  # fmt: skip
    """GRPO done right: each answer's sum is divided by the longest length that was allowed (the fact `limit`), not by its own, so
    that long wrong answers are not favoured (arXiv 2503.20783). Its credit is centred without a scale.
    """
    loss_N, clipped_N = surrogate(_ratio(s), _advantage(s), clip_low, clip_high)
    held_N, told = _held(s, kl=kl, estimator=estimator, entropy=entropy)
    total = (s.sum(loss_N + held_N) / s.facts["limit"].to(s.logp.dtype)).sum()
    return Loss(total, _by_answer(s, loss_N, told | {"clipped": clipped_N}).metrics)


@objective(needs=_asks, unit="token", facts=FACTS, pace=PACE, only=HELD)
def dapo(
    s: Signals,
    *,
    clip_low: Positive = 0.2,
    clip_high: Positive = 0.28,
    kl: Weight = 0.0,
    estimator: Estimator = "k3",
    entropy: Weight = 0.0,
) -> Loss:
    """DAPO: a wider upper clip, and a mean over all tokens of the step (arXiv 2503.14476).

    Its other parts are of the rollout: dynamic sampling (`rollout.rounds`) and the penalty for overlong answers (the reward `overlong`).
    """
    loss_N, clipped_N = surrogate(_ratio(s), _advantage(s), clip_low, clip_high)
    held_N, told = _held(s, kl=kl, estimator=estimator, entropy=entropy)
    return _by_token(s, loss_N + held_N, told | {"clipped": clipped_N})


@objective(needs=_asks, unit="sequence", facts=FACTS, pace=PACE, only=HELD)
def gspo(
    s: Signals,
    *,
    clip_low: Positive = 3e-4,
    clip_high: Positive = 4e-4,
    kl: Weight = 0.0,
    estimator: Estimator = "k3",
    entropy: Weight = 0.0,
) -> Loss:
    """Group sequence policy optimisation: one ratio for each answer, the geometric mean of its tokens' (arXiv 2507.18071)."""
    ratio_S = s.mean(s.logp - s.facts["old_logp"].to(s.logp.dtype)).exp()
    return _whole_answers(s, ratio_S, (clip_low, clip_high), _held(s, kl=kl, estimator=estimator, entropy=entropy))


@objective(needs=_asks, unit="sequence", facts=FACTS, pace=PACE, only=HELD)
def rloo(
    s: Signals, *, clip_low: Positive = 0.2, clip_high: Positive = 0.2,
    kl: Weight = 0.0, estimator: Estimator = "k3", entropy: Weight = 0.0,
) -> Loss:  # fmt: skip
    """REINFORCE with a leave-one-out baseline: the whole answer is one action, and so is its ratio (arXiv 2402.14740)."""
    ratio_S = s.sum(s.logp - s.facts["old_logp"].to(s.logp.dtype)).exp()
    return _whole_answers(s, ratio_S, (clip_low, clip_high), _held(s, kl=kl, estimator=estimator, entropy=entropy))


def _whole_answers(s: Signals, ratio_S: Tensor, clip: tuple[float, float], held: tuple[Tensor, dict[str, Tensor]]) -> Loss:
    loss_S, clipped_S = surrogate(ratio_S, s.mean(_advantage(s)), *clip)
    found = _by_answer(s, *held)
    return Loss(loss_S.sum() + found.total, found.metrics | {"clipped": clipped_S.sum()})


@objective(needs=_asks, unit="token", facts=FACTS, pace=PACE, only=HELD)
def cispo(s: Signals, *, clip_high: Positive = 5.0, kl: Weight = 0.0, estimator: Estimator = "k3", entropy: Weight = 0.0) -> Loss:
    """CISPO: the ratio is a weight of at most `clip_high` and has no gradient, so no token's gradient is stopped (arXiv 2506.13585)."""
    loss_N, clipped_N = _weighted(s, clip_high)
    held_N, told = _held(s, kl=kl, estimator=estimator, entropy=entropy)
    return _by_token(s, loss_N + held_N, told | {"clipped": clipped_N})


@objective(needs=_asks, unit="sequence", facts=FACTS, pace=PACE, only=HELD)
def reinforce(s: Signals, *, clip_high: Positive = 2.0, kl: Weight = 0.0, estimator: Estimator = "k3", entropy: Weight = 0.0) -> Loss:
    """The plain policy gradient of whole answers, for credit such as ReMax's (arXiv 2310.10505).

    Where the policy has moved on since it wrote them, tokens are weighted by their ratio, up to `clip_high`.
    """
    loss_N, clipped_N = _weighted(s, clip_high)
    held_N, told = _held(s, kl=kl, estimator=estimator, entropy=entropy)
    return Loss(s.sum(loss_N + held_N).sum(), _by_answer(s, loss_N, told | {"clipped": clipped_N}).metrics)


def _weighted(s: Signals, most: float) -> tuple[Tensor, Tensor]:
    ratio_N = _ratio(s).detach()
    return -ratio_N.clamp(max=most) * _advantage(s) * s.logp, (ratio_N > most).to(ratio_N.dtype)


def _asks_value(*, kl: float, entropy: float) -> str:
    return f"{_asks(kl=kl, entropy=entropy)} value"


@objective(needs=_asks_value, unit="token", facts=f"{FACTS} returns_N old_value_N", pace=PACE, only=HELD)
def ppo(
    s: Signals, *, clip: Positive = 0.2, value_clip: Positive = 0.2, value_weight: Weight = 0.5,
    kl: Weight = 0.0, estimator: Estimator = "k3", entropy: Weight = 0.0,
) -> Loss:  # fmt: skip
    """Proximal policy optimisation: clipped surrogate, and a value head that learns the returns, clipped too (arXiv 1707.06347).

    The KL to the SFT policy is usually a part of the reward (`rollout.kl`); `kl` puts it into the loss instead.
    """
    loss_N, clipped_N = surrogate(_ratio(s), _advantage(s), clip, clip)
    held_N, told = _held(s, kl=kl, estimator=estimator, entropy=entropy)
    returns_N, old_N = (s.facts[name].to(s.value.dtype) for name in ("returns", "old_value"))
    near_N = old_N + (s.value - old_N).clamp(-value_clip, value_clip)
    value_N = 0.5 * ((s.value - returns_N) ** 2).maximum((near_N - returns_N) ** 2)
    told |= {"clipped": clipped_N, "value_loss": value_N, "value": s.value}
    return _by_token(s, loss_N + value_weight * value_N.to(loss_N.dtype) + held_N, told)
