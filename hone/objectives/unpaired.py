"""Objectives over single answers that are wanted (fact `label` 1) or not (0).

The reward of an answer is beta times its log-ratio under the policy and the reference, summed over its tokens, in nats. Losses
are sums over answers. `accuracy` is the share of answers whose reward lies on the right side of the reference point.

Shape legend: S sequences.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor, where
from torch.nn.functional import logsigmoid

from hone.core.types import Group, Loss, Sequence, Signals
from hone.objectives.base import objective
from hone.objectives.paired import PACE

Positive = Annotated[float, Gt(0)]
Weight = Annotated[float, Ge(0)]


def mismatched(group: Group, other: Group) -> Group:
    """The prompts of a group with the answers of another: how the policy moves where it was not taught (arXiv 2402.01306)."""
    said = [sequence for sequence in other for _ in group][: len(group)]
    return tuple(_joined(mine, theirs) for mine, theirs in zip(group, said, strict=True))


def _joined(mine: Sequence, theirs: Sequence) -> Sequence:
    prompt, answer = _begin(mine), _begin(theirs)
    return Sequence(mine.tokens[:prompt] + theirs.tokens[answer:], mine.weights[:prompt] + theirs.weights[answer:], {}, mine.origin)


def _begin(sequence: Sequence) -> int:
    """The index of the first learned token."""
    return next((i for i, weight in enumerate(sequence.weights) if i and weight), len(sequence.tokens))


def _ratios(s: Signals) -> Tensor:
    """Log-ratio of each answer under the policy and the reference, (S,)."""
    return s.sum(s.logp - s.ref_logp)


def _judged(s: Signals, loss_S: Tensor, reward_S: Tensor, point: Tensor | float) -> Loss:
    """The summed loss, with what the rewards say."""
    right_S = (reward_S.detach() > point) == (s.facts["label"] > 0.5)
    return Loss(loss_S.sum(), {"accuracy": right_S.to(reward_S.dtype).sum(), "reward": reward_S.detach().sum()})


@objective(needs="logp ref_logp", unit="sequence", data="label", facts="label_S", pace=PACE, stats={"kl_point": _ratios}, aside=mismatched)
def kto(s: Signals, *, beta: Positive = 0.1, wanted: Weight = 1.0, unwanted: Weight = 1.0) -> Loss:
    """Kahneman-Tversky optimisation: gains and losses against how far the policy has moved in general (arXiv 2402.01306).

    The reference point is the mean log-ratio, over the optimiser step, of prompts with the answers of other rows; never below 0.
    `wanted` and `unwanted` weigh the two kinds: where one is n times as common, give the other n times the weight.
    """
    ratio_S, ratios = _ratios(s), s.step["kl_point"].all
    point = ratios.mean().clamp(min=0).to(ratio_S.dtype) if len(ratios) else ratio_S.new_zeros(())
    gain_S = beta * (ratio_S - point)
    loss_S = where(s.facts["label"] > 0.5, wanted * (-gain_S).sigmoid(), unwanted * gain_S.sigmoid())
    found = _judged(s, loss_S, beta * ratio_S, beta * point)
    return Loss(found.total, found.metrics | {"kl_point": point * s.batch.sequences})


def _means(s: Signals, names: tuple[str, ...]) -> Tensor:
    """The mean over those statistics of the step that have a value at all, each counting once."""
    found = [s.step[name].all.mean() for name in names if len(s.step[name].all)]
    return sum(found, start=s.logp.new_zeros(())) / max(1, len(found))


@objective(
    needs="logp ref_logp",
    unit="sequence",
    data="label",
    facts="label_S",
    pace=PACE,
    stats={
        "bco_wanted": lambda s: _ratios(s)[s.facts["label"] > 0.5],
        "bco_unwanted": lambda s: _ratios(s)[s.facts["label"] <= 0.5],
    },
)
def bco(s: Signals, *, beta: Positive = 0.1) -> Loss:
    """Binary classifier optimisation: wanted or not, by how far the reward is from midway between the two kinds (arXiv 2404.04656).

    The middle is that of the mean rewards of wanted and unwanted answers, over the optimiser step.
    """
    reward_S = beta * _ratios(s)
    point = beta * _means(s, ("bco_wanted", "bco_unwanted")).to(reward_S.dtype)
    sign_S = where(s.facts["label"] > 0.5, 1.0, -1.0).to(reward_S.dtype)
    return _judged(s, -logsigmoid(sign_S * (reward_S - point)), reward_S, point)
