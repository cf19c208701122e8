"""The numbers that objectives report beside their loss: what they are called, and what they mean."""

from __future__ import annotations

from typing import NamedTuple

from hone.report.folder import RunFolder
from hone.report.numbers import loss_text, percent


class Own(NamedTuple):
    """One number: its title, and what it is."""

    title: str
    about: str
    share: bool = False


OWN = {
    "accuracy": Own("Accuracy", "How often the scores or rewards put what is better, or wanted, where it belongs.", share=True),
    "margin": Own("Margin", "Mean difference between the rewards of the better and the worse answers."),
    "chosen": Own("Reward of the better answers", "Mean over the pairs. If it falls, the margin comes from making both less likely."),
    "rejected": Own("Reward of the worse answers", "Mean over the pairs."),
    "reward": Own("Reward", "Mean reward of the answers."),
    "kl_point": Own("Reference point", "How far the model has moved in general, in nats; gains and losses are measured from here."),
    "divergence": Own("Divergence from the teacher", "Mean over the learned tokens."),
    "absolute_error": Own("Absolute error", "Mean distance of the prediction from the number."),
}
"""By the name under which metrics.jsonl has them."""
IMITATING = ("sft", "cpt")
"""Objectives whose loss is the negative log-likelihood of a learned token."""


def held_out_lines(run: RunFolder) -> list[str]:
    """A sentence for each of them that was measured on held-out data at least twice."""
    found = []
    for name, own in OWN.items():
        points = run.series(f"eval_{name}")
        if len(points) > 1:
            show = percent if own.share else loss_text
            (first, before), (last, after) = points[0], points[-1]
            found.append(f"{own.title}: {show(before)} at step {first:,.0f}, {show(after)} at step {last:,.0f}.")
    return found


def imitates(run: RunFolder) -> bool:
    """Whether the loss of a run is a negative log-likelihood, so that its exponential is a perplexity."""
    return run.section("objective").get("name", "sft") in IMITATING
