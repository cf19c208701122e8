"""What an objective wants: what is good becomes likelier, what has no weight has no say, what is only asked is not what is learned.

Shape legend: N reads, S sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hone.core.types import Group, Signals
from hone.prove import plain
from hone.prove.base import Found, Mute, proof
from hone.prove.subject import Subject


@proof("V022", bound=89.9, unit="degrees")
def direction(s: Subject) -> Found | Mute:
    """A step along the loss makes what is wanted likelier, or scored higher, and what is not wanted less so."""
    signals = _signals(s, s.groups)
    said_N = signals.logp_N if signals.logp_N is not None else signals.score_S
    if said_N is None or said_N.dim() > 1:
        return Mute("what is wanted is not a matter of more or less")
    wish = _wish(s, signals, said_N)
    if wish is None or not wish.any():
        return Mute("nothing in these rows is wanted more than something else")
    leaf = said_N.detach().requires_grad_(True)
    if signals.logp_N is not None:
        signals.logp_N = leaf
    else:
        signals.score_S = leaf
    (slope,) = torch.autograd.grad(s.objective(signals).total, leaf, allow_unused=True)
    if slope is None or not slope.any():  # type: ignore[redundant-expr]
        return Mute("at this point the objective is flat")
    return Found(_angle(-slope, wish))


def _angle(one: Tensor, other: Tensor) -> float:
    cosine = torch.nn.functional.cosine_similarity(one.double(), other.double().to(one.device), dim=0).item()
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


def _wish(s: Subject, signals: Signals, said: Tensor) -> Tensor | None:
    """Which way each number should go, with its weight; None where the data does not say."""
    batch, data = signals.batch, s.objective.data
    if "advantage" in batch.facts:
        sign_N = batch.facts["advantage"]
    elif data == "pair":
        sign_N = 1.0 - 2.0 * (torch.arange(batch.sequences) % 2)
    elif data == "label":
        sign_N = 2.0 * batch.facts["label"] - 1.0
    elif data == "single" and "divergence" not in s.objective.needs:
        sign_N = torch.ones(batch.sequences)
    else:
        return None
    per_read = len(sign_N) == len(batch.read_N) and len(said) == len(batch.read_N)
    if len(said) != len(batch.read_N):
        return sign_N
    return (sign_N if per_read and "advantage" in batch.facts else sign_N[batch.row_N]) * batch.weight_N


def _signals(s: Subject, groups: Sequence[Group]) -> Signals:
    """What the plain way says of some groups, without gradients."""
    policy, base = plain.moved(s), s.base()
    with torch.no_grad():
        signals = plain.said(plain.twin(s, policy), base, groups, s.objective.needs)
    signals.step = plain.statistics(s, policy, base, groups)
    return signals


@proof("V023", bound=1e-6, unit="of the loss")
def weightless(s: Subject) -> Found | Mute:
    """Tokens without weight have no part in the loss, whatever the model says of them."""
    signals = _signals(s, s.groups)
    if not len(signals.batch.read_N):
        return Mute("nothing is read here")
    before = float(s.objective(signals).total)
    after = float(s.objective(_with_weightless(signals)).total)
    return Found(abs(after - before) / max(abs(before), 1e-6))


def _with_weightless(signals: Signals) -> Signals:
    """The same signals, with every read once more at the end of its row without a weight, and with something odd said of it."""
    batch, count = signals.batch, len(signals.batch.read_N)
    order_M = torch.cat([batch.row_N, batch.row_N]).argsort(stable=True)

    def twice(x_N: Tensor, odd: float) -> Tensor:
        return torch.cat([x_N, x_N + odd])[order_M]

    weight_M = torch.cat([batch.weight_N, torch.zeros_like(batch.weight_N)])[order_M]
    facts = {name: twice(fact, 0) if len(fact) == count != batch.sequences else fact for name, fact in batch.facts.items()}
    read_M, target_M, row_M = (twice(x_N, 0) for x_N in (batch.read_N, batch.target_N, batch.row_N))
    wider = replace(batch, read_N=read_M, target_N=target_M, row_N=row_M, weight_N=weight_M, facts=facts)
    said = {name: getattr(signals, name) for name in _PER_READ}
    return Signals(
        wider, score_S=signals.score_S, step=signals.step, **{name: None if x is None else twice(x, -0.7) for name, x in said.items()}
    )


_PER_READ = ("logp_N", "ref_logp_N", "entropy_N", "mean_logp_N", "divergence_N", "value_N", "step_score_N")


@proof("V024", bound=0, unit="rows")
def asides(s: Subject) -> Found | Mute:
    """Where an objective compares with answers of other rows, no row is compared with its own."""
    if s.objective.aside is None:
        return Mute("the objective asks for no other rows")
    made = plain.asides(s.objective, s.groups)
    answers = [[[one.tokens[j] for j in plain.learned(one)] for one in group] for group in s.groups]
    wrong = [
        group[0].origin
        for i, (group, other) in enumerate(zip(s.groups, made, strict=True))
        if [one.tokens for one in group] == [one.tokens for one in other] and answers[i] != answers[(i + 1) % len(answers)]
    ]
    return Found(len(wrong), str(wrong[0]) if wrong else "")
