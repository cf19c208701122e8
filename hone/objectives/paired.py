"""Objectives that prefer one answer to another. A group is (chosen, rejected), so sequences lie chosen, rejected, chosen ...

With r the log-ratio of an answer under the policy and the reference (summed over its tokens, in nats), the implicit reward is
beta r. Losses are sums over pairs. `accuracy` is the share of pairs whose chosen answer has the higher reward, `margin` the mean
difference of the rewards.

Shape legend: N reads, S sequences, G groups.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from hone.core.types import Loss, Signals, StepStat
from hone.objectives.base import objective

Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Lt(0.5)]
PACE = 0.025
"""Preferences want small steps: 5e-6 where imitation takes 2e-4."""
Divergence = Literal["reverse_kl", "forward_kl", "jensen_shannon", "alpha"]


def pairs(x_S: Tensor) -> tuple[Tensor, Tensor]:
    """What belongs to the chosen and to the rejected answers, each (G,)."""
    return x_S[0::2], x_S[1::2]


def log_ratios(s: Signals) -> tuple[Tensor, Tensor]:
    """How much likelier the policy finds each answer than the reference does, in nats: chosen and rejected, each (G,)."""
    return pairs(s.sum(s.logp - s.ref_logp))


def mean_log_ratios(s: Signals) -> tuple[Tensor, Tensor]:
    """The same for each token of an answer."""
    return pairs(s.mean(s.logp - s.ref_logp))


def preferred(loss_G: Tensor, chosen_G: Tensor, rejected_G: Tensor) -> Loss:
    """The summed loss of all pairs, with what their rewards say."""
    margin_G = (chosen_G - rejected_G).detach()
    metrics = {"accuracy": (margin_G > 0).to(margin_G.dtype).sum(), "margin": margin_G.sum()}
    return Loss(loss_G.sum(), metrics | {"chosen": chosen_G.detach().sum(), "rejected": rejected_G.detach().sum()})


def smoothed(margin_G: Tensor, smoothing: float) -> Tensor:
    """-log sigmoid of a margin, where this share of the labels is taken to be wrong."""
    return -(1 - smoothing) * logsigmoid(margin_G) - smoothing * logsigmoid(-margin_G)


@objective(
    needs="logp ref_logp", unit="group", data="pair", pace=PACE, only={"alpha": "divergence=alpha", "robust": "label_smoothing"}
)  # fmt: skip
def dpo(
    s: Signals, *, beta: Positive = 0.1, label_smoothing: Share = 0.0, robust: bool = False, length_normalised: bool = False,
    divergence: Divergence = "reverse_kl", alpha: float = 0.5,
) -> Loss:  # fmt: skip
    """Direct preference optimisation: the reward of an answer is beta times its log-ratio (arXiv 2305.18290).

    `label_smoothing` is the share of pairs that are taken to be labelled the wrong way round: conservative DPO, or with
    `robust` its unbiased correction (arXiv 2403.00409). `length_normalised` takes log-ratios per token (arXiv 2411.15124). `divergence`
    keeps to the reference by another f-divergence, `alpha` being that of the alpha-divergence (arXiv 2309.16240).
    """
    chosen_G, rejected_G = mean_log_ratios(s) if length_normalised else log_ratios(s)
    margin_G = beta * (_slope(chosen_G, divergence, alpha) - _slope(rejected_G, divergence, alpha))
    if robust:
        noise = label_smoothing
        loss_G = (-(1 - noise) * logsigmoid(margin_G) + noise * logsigmoid(-margin_G)) / (1 - 2 * noise)
    else:
        loss_G = smoothed(margin_G, label_smoothing)
    return preferred(loss_G, beta * chosen_G, beta * rejected_G)


def _slope(ratio_G: Tensor, divergence: Divergence, alpha: float) -> Tensor:
    """f'(t) of an f-divergence at t = exp(ratio), without the constants that cancel in a difference."""
    if divergence == "forward_kl":
        return -(-ratio_G).exp()
    if divergence == "jensen_shannon":
        return logsigmoid(ratio_G)
    if divergence == "alpha" and abs(alpha - 1) > 1e-6:
        return ((alpha - 1) * ratio_G).clamp(max=80.0).expm1() / (alpha - 1)
    return ratio_G


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def ipo(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Identity preference optimisation: the log-ratios per token shall differ by exactly 1 / (2 beta) (arXiv 2310.12036)."""
    chosen_G, rejected_G = mean_log_ratios(s)
    return preferred((chosen_G - rejected_G - 1 / (2 * beta)) ** 2, beta * chosen_G, beta * rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def hinge(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Hinge loss on the margin of rewards, as in SLiC (arXiv 2305.10425) with DPO's reward."""
    chosen_G, rejected_G = (beta * ratio_G for ratio_G in log_ratios(s))
    return preferred(relu(1 - (chosen_G - rejected_G)), chosen_G, rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def exo(s: Signals, *, beta: Positive = 0.1, label_smoothing: Annotated[float, Gt(0), Lt(0.5)] = 1e-3) -> Loss:
    """Efficient exact optimisation: reverse KL from the policy's preference to the smoothed label (arXiv 2402.00856, eq. 16)."""
    chosen_G, rejected_G = (beta * ratio_G for ratio_G in log_ratios(s))
    won_G, lost_G = logsigmoid(chosen_G - rejected_G), logsigmoid(rejected_G - chosen_G)
    loss_G = won_G.exp() * (won_G - math.log1p(-label_smoothing)) + lost_G.exp() * (lost_G - math.log(label_smoothing))
    return preferred(loss_G, chosen_G, rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def nca(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Noise-contrastive alignment for pairs: each reward counts by itself, so the chosen one cannot fall too (arXiv 2402.05369)."""
    chosen_G, rejected_G = (beta * ratio_G for ratio_G in log_ratios(s))
    loss_G = -logsigmoid(chosen_G) - 0.5 * logsigmoid(-chosen_G) - 0.5 * logsigmoid(-rejected_G)
    return preferred(loss_G, chosen_G, rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def bco_pair(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Binary classification of both answers of a pair by their rewards, around zero (arXiv 2404.04656)."""
    chosen_G, rejected_G = (beta * ratio_G for ratio_G in log_ratios(s))
    return preferred(-logsigmoid(chosen_G) - logsigmoid(-rejected_G), chosen_G, rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def sppo(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Self-play preference optimisation with certain labels: log-ratios of +- 1 / (2 beta) (arXiv 2405.00675, eq. 4.7)."""
    chosen_G, rejected_G = log_ratios(s)
    loss_G = (chosen_G - 0.5 / beta) ** 2 + (rejected_G + 0.5 / beta) ** 2
    return preferred(loss_G, beta * chosen_G, beta * rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def apo_zero(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Anchored preference optimisation where the chosen answers are better than the model's own (arXiv 2408.06266, eq. 7)."""
    chosen_G, rejected_G = (beta * ratio_G for ratio_G in log_ratios(s))
    return preferred(1 - chosen_G.sigmoid() + rejected_G.sigmoid(), chosen_G, rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def apo_down(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Anchored preference optimisation where even the chosen answers are worse than the model's own (arXiv 2408.06266, eq. 8)."""
    chosen_G, rejected_G = (beta * ratio_G for ratio_G in log_ratios(s))
    return preferred(chosen_G.sigmoid() + 1 - (chosen_G - rejected_G).sigmoid(), chosen_G, rejected_G)


@objective(needs="logp ref_logp", unit="group", data="pair", pace=PACE)
def discopop(s: Signals, *, beta: Positive = 0.05, tau: Positive = 0.05) -> Loss:
    """DiscoPOP, found by a language model: logistic and exponential loss, blended by the margin (arXiv 2406.08414, eq. 5)."""
    chosen_G, rejected_G = (beta * ratio_G for ratio_G in log_ratios(s))
    margin_G = chosen_G - rejected_G
    blend_G = (margin_G / tau).sigmoid()
    return preferred(-logsigmoid(margin_G) * (1 - blend_G) + (-margin_G).exp() * blend_G, chosen_G, rejected_G)


@objective(
    needs="logp ref_logp",
    unit="group",
    data="pair",
    pace=PACE,
    stats={
        "aot_better": lambda s, *, paired=True: _contestants(s, paired=paired)[0],
        "aot_worse": lambda s, *, paired=True: _contestants(s, paired=paired)[1],
    },
)
def aot(s: Signals, *, beta: Positive = 0.1, label_smoothing: Share = 0.0, paired: bool = True) -> Loss:
    """Alignment by optimal transport: all better ones of a step, sorted, shall lie above the worse, sorted (arXiv 2406.05882).

    With `paired`, the log-odds of the pairs under the policy against those under the reference; else the log-ratios of all
    chosen answers against those of all rejected ones, whatever belongs together. The sort is over the optimiser step.
    """
    better_G, worse_G = _contestants(s, paired=paired)
    rivals_G, losers_G = _opponents(s.step["aot_better"], s.step["aot_worse"]), _opponents(s.step["aot_worse"], s.step["aot_better"])
    loss_G = smoothed(beta * (better_G - rivals_G.to(better_G.dtype)), label_smoothing)
    mirrored_G = smoothed(beta * (losers_G.to(worse_G.dtype) - worse_G), label_smoothing)
    chosen_G, rejected_G = log_ratios(s)
    return preferred(loss_G + mirrored_G - mirrored_G.detach(), beta * chosen_G, beta * rejected_G)


def _contestants(s: Signals, *, paired: bool) -> tuple[Tensor, Tensor]:
    """Those that shall be above and those that shall be below, each (G,)."""
    if not paired:
        return log_ratios(s)
    (chosen_G, rejected_G), (ref_chosen_G, ref_rejected_G) = pairs(s.sum(s.logp)), pairs(s.sum(s.ref_logp))
    return chosen_G - rejected_G, ref_chosen_G - ref_rejected_G


def _opponents(mine: StepStat, theirs: StepStat) -> Tensor:
    """For each of the batch's own, the one of the same rank on the other side."""
    rank = mine.all.argsort(stable=True).argsort()
    return theirs.all.sort().values[rank[mine.here]]


@objective(needs="logp", unit="group", data="pair", pace=PACE)
def orpo(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Odds-ratio preference optimisation: imitation of the chosen answer, and beta times an odds-ratio term; no reference
    (arXiv 2403.07691).
    """
    chosen_G, rejected_G = pairs(s.mean(s.logp))
    odds_G = _log_odds(chosen_G) - _log_odds(rejected_G)
    found = preferred(-chosen_G - beta * logsigmoid(odds_G), beta * chosen_G, beta * rejected_G)
    return Loss(found.total, found.metrics | {"nll": -chosen_G.detach().sum()})


def _log_odds(logp_G: Tensor) -> Tensor:
    """log(p / (1 - p)) of a log-probability below zero."""
    return logp_G - (-logp_G.clamp(max=-1e-7).expm1()).log()


@objective(needs="logp", unit="group", data="pair", pace=PACE)
def cpo(s: Signals, *, beta: Positive = 0.1, imitation: Annotated[float, Ge(0)] = 1.0, label_smoothing: Share = 0.0) -> Loss:
    """Contrastive preference optimisation: DPO against a uniform reference, and imitation of the chosen answer per token
    (arXiv 2401.08417).
    """
    chosen_G, rejected_G = (beta * logp_G for logp_G in pairs(s.sum(s.logp)))
    nll_G = -pairs(s.mean(s.logp))[0]
    found = preferred(smoothed(chosen_G - rejected_G, label_smoothing) + imitation * nll_G, chosen_G, rejected_G)
    return Loss(found.total, found.metrics | {"nll": nll_G.detach().sum()})


@objective(needs="logp", unit="group", data="pair", pace=PACE)
def simpo(s: Signals, *, beta: Positive = 2.0, gamma: Annotated[float, Ge(0)] = 1.0, label_smoothing: Share = 0.0) -> Loss:
    """Simple preference optimisation: the reward is beta times the mean log-probability of a token, without a reference, and
    shall differ by `gamma` at least (arXiv 2405.14734).
    """
    chosen_G, rejected_G = (beta * logp_G for logp_G in pairs(s.mean(s.logp)))
    return preferred(smoothed(chosen_G - rejected_G - gamma, label_smoothing), chosen_G, rejected_G)
