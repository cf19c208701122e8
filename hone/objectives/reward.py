"""Objectives that train a head to score answers: reward models, process reward models, classifiers and regressors.

The score head (see `hone.models.readouts`) reads the last token of a sequence, or of each step.

Shape legend: N reads, S sequences, G groups, C classes.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, logsigmoid

from hone.core.types import Loss, Needs, Signals
from hone.objectives.base import objective
from hone.objectives.paired import pairs, preferred


@objective(needs="score", unit="group", data="pair", facts="margin_S")
def rm(s: Signals, *, centring: Annotated[float, Ge(0)] = 0.0) -> Loss:
    """Reward model: the chosen answer shall score higher than the rejected one, by the row's `margin` if it has one
    (Bradley-Terry, arXiv 2203.02155; margins, arXiv 2307.09288).

    `centring` pulls the two scores' sum to zero, so that scores of different prompts can be compared (arXiv 2312.09244).
    """
    chosen_G, rejected_G = pairs(s.score)
    margin_G = pairs(s.facts["margin"].to(chosen_G.dtype))[0]
    loss_G = -logsigmoid(chosen_G - rejected_G - margin_G) + centring * (chosen_G + rejected_G) ** 2
    return preferred(loss_G, chosen_G, rejected_G)


@objective(needs="score", unit="sequence", data="label", facts="label_S")
def pointwise_rm(s: Signals) -> Loss:
    """Reward model of single answers: the score is the log-odds of the answer being wanted (binary cross-entropy)."""
    return _right_or_wrong(s.score, s.facts["label"])


@objective(needs="step_score", unit="token", data="steps", facts="step_label_N")
def prm(s: Signals) -> Loss:
    """Process reward model: the log-odds of each step being right, read at its last token (arXiv 2305.20050)."""
    return _right_or_wrong(s.step_score, s.facts["step_label"], s.batch.weight_N)


def _right_or_wrong(score: Tensor, label: Tensor, weight: Tensor | None = None) -> Loss:
    """Binary cross-entropy of scores as log-odds, and how many lie on the right side."""
    loss = binary_cross_entropy_with_logits(score, label.to(score.dtype), weight, reduction="none")
    right = ((score.detach() > 0) == (label > 0.5)).to(score.dtype)
    return Loss(loss.sum(), {"accuracy": (right if weight is None else right * weight).sum()})


def _classes(*, classes: tuple[str, ...]) -> Needs:
    return {"score": {"width": max(2, len(classes))}}


@objective(needs=_classes, unit="sequence", data="class", facts="class_S")
def classifier(s: Signals, *, classes: tuple[str, ...] = (), label_smoothing: Annotated[float, Ge(0)] = 0.0) -> Loss:
    """Sorts texts into classes with a head of its own instead of words (cross-entropy). `classes` are found in the data if not given."""
    label_S = s.facts["class"].long()
    loss = cross_entropy(s.score, label_S, reduction="sum", label_smoothing=label_smoothing)
    return Loss(loss, {"accuracy": (s.score.detach().argmax(-1) == label_S).to(loss.dtype).sum()})


@objective(needs="score", unit="sequence", data="number", facts="number_S")
def regressor(s: Signals) -> Loss:
    """Predicts a number for a text with a head of its own: half the squared error."""
    error_S = s.score - s.facts["number"].to(s.score.dtype)
    return Loss(0.5 * (error_S**2).sum(), {"absolute_error": error_S.detach().abs().sum()})
