"""Several preference losses at once, with weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.types import Loss, Needs, Signals
from hone.objectives.base import OBJECTIVES, Objective, objective
from hone.objectives.paired import PACE, pairs

Weight = Annotated[float, Ge(0)]
MPO = {"dpo": 0.8, "bco_pair": 0.2}


def _parts(weights: Mapping[str, float], beta: float | None) -> dict[str, Objective]:
    """The losses of a mixture. Raises C050 for one that does not compare pairs, or whose statistics are of a whole step."""
    found = {name: OBJECTIVES[name] for name in weights}
    for name, part in found.items():
        if part.data != "pair" or part.unit != "group" or part.stats or part.facts:
            fits = ", ".join(n for n, o in OBJECTIVES.items() if o.data == "pair" and not (o.stats or o.facts) and n != "mpo")
            what = f"'{name}' cannot be part of a mixture of preference losses"
            raise HoneError("C050", what, where="objective.weights", fix=f"choose among {fits}")
    takes = {name: beta is not None and "beta" in part.full for name, part in found.items()}
    return {name: part.bind(beta=beta) if takes[name] else part for name, part in found.items()}


def _all(*, weights: Mapping[str, float], beta: float | None) -> Needs:
    merged: dict[str, Mapping[str, object]] = {"logp": {}}
    for part in _parts(weights, beta).values():
        merged |= part.needs
    return merged


@objective(needs=_all, unit="group", data="pair", pace=PACE)
def mpo(s: Signals, *, weights: Mapping[str, Weight] = MPO, imitation: Weight = 1.0, beta: Annotated[float, Gt(0)] | None = 0.1) -> Loss:
    """Mixed preference optimisation: a weighted sum of preference losses, and `imitation` times the negative log-likelihood per
    token of the chosen answers (arXiv 2411.10442).

    `weights` names the losses; `beta` is given to all that take one, none leaves each its own.
    """
    nll = -pairs(s.mean(s.logp))[0].sum()
    total = imitation * nll
    first: dict[str, Tensor] = {}
    for name, part in _parts(weights, beta).items():
        found = part(s)
        total = total + weights[name] * found.total
        first = first or found.metrics
    return Loss(total, {"nll": nll.detach(), **first})
