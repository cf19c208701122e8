"""How far a copy's answers are from the trained model's, in numbers, and how far they may be.

Shape legend: P positions, K likeliest tokens kept, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hone.export.proof.golden import Golden, Vector
from hone.export.proof.subject import Subject

TIE = 0.1
"""Two tokens whose log-probabilities are closer than twice this may change places in any inexact copy."""


class Reading(NamedTuple):
    """One probe, read on a copy."""

    name: str
    worst: float
    """Largest difference of a log-probability."""
    kl: float
    """Mean KL divergence of a position, in nats: trained model || copy. What is below the likeliest tokens counts as one token."""
    agree: float
    """Share of positions where the likeliest token is the same; near ties (closer than the band allows) count as the same."""
    positions: int


class Band(NamedTuple):
    """What a kind of weights may differ by: the largest log-probability difference, the mean KL in nats, and the likeliest tokens."""

    worst: float
    kl: float
    agree: float = 1.0
    """Share of places where the likeliest token must be the same, near ties aside."""


BANDS = {
    "float64": Band(1e-5, 1e-6),
    "float32": Band(1e-4, 1e-6),
    "float16": Band(0.1, 1e-3, 0.99),
    "bfloat16": Band(0.5, 1e-3, 0.98),
    "int8": Band(1.0, 1e-2, 0.98),
    "nf4": Band(8.0, 0.3, 0.85),
    "fp4": Band(9.0, 0.4, 0.8),
}
"""Of models in safetensors; the last three are quantised by bitsandbytes. The types that quantise are in `hone.export.gguf.types`."""
PACKED = ("int8", "nf4", "fp4")


def read(golden: Golden, subject: Subject, tie: float) -> list[Reading]:
    """Replay every probe on the golden tokens, so that one wrong token does not spoil the next."""
    return [_read(vector, subject, tie) for vector in golden.vectors]


def _read(vector: Vector, subject: Subject, tie: float) -> Reading:
    logp_PV = subject.logprobs(vector.tokens, vector.positions).double()
    top_PK, want_PK = vector.top_PK, vector.logp_PK.double()
    if int(top_PK.max()) >= logp_PV.shape[-1] or not bool(torch.isfinite(logp_PV).all()):
        return Reading(vector.name, float("inf"), float("inf"), 0.0, len(top_PK))
    got_PK = logp_PV.gather(-1, top_PK)
    worst = float((got_PK - want_PK).abs().max())
    same_P = logp_PV.argmax(-1) == top_PK[:, 0]
    # The copy may choose another token only where the trained model itself found the two almost equally likely.
    chosen_P = logp_PV.argmax(-1, keepdim=True)
    near_P = ((chosen_P == top_PK) & (want_PK[:, :1] - want_PK < 2 * min(tie, worst, TIE))).any(-1)
    return Reading(vector.name, worst, kl(want_PK, got_PK), float((same_P | near_P).double().mean()), len(top_PK))


def kl(want_PK: Tensor, got_PK: Tensor) -> float:
    """Mean KL of positions, from the log-probabilities of the likeliest tokens; the rest is one token."""
    p, q = want_PK.exp(), got_PK.exp()
    rest_p, rest_q = (1 - p.sum(-1)).clamp(min=1e-12), (1 - q.sum(-1)).clamp(min=1e-12)
    each = (p * (want_PK - got_PK)).sum(-1) + rest_p * (rest_p / rest_q).log()
    return float(each.clamp(min=0).mean())


def overall(readings: list[Reading]) -> Reading:
    """All probes together: the worst difference, the mean over positions of the rest."""
    count = sum(r.positions for r in readings) or 1
    return Reading(
        "all",
        max((r.worst for r in readings), default=0.0),
        sum(r.kl * r.positions for r in readings) / count,
        sum(r.agree * r.positions for r in readings) / count,
        count,
    )
