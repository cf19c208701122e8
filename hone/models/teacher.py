"""What a teacher says at the reads of a batch: asked on the spot, or as the batch brings it from an earlier pass.

Shape legend: N reads, C reads of a chunk, V vocabulary, K the teacher's likeliest tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.types import Batch
from hone.models.logprob import chunks
from hone.models.vocabulary import Reading
from hone.objectives.divergence import folded, jsd, sorted_distance, with_rest

if TYPE_CHECKING:
    from hone.models.policy import Policy

IDS, LOGP = "teacher_ids", "teacher_logp"
"""Facts of each token: the teacher's likeliest tokens (N, K) and their log-probabilities (N, K); without ids the latter are those
of the whole vocabulary (N, V), or in any order for a teacher with other tokens."""

Said = Callable[[slice], tuple[Tensor | None, Tensor]]
"""Reads to the teacher's (token ids or None, log-probabilities)."""


Say = Callable[[Batch], Mapping[str, Tensor]]
"""A batch to facts of its reads, each (N,) or (N, K)."""


def teacher_reading(teacher: Policy | Say | None, batch: Batch, how: Mapping[str, Any]) -> Reading:
    """The divergence of the student's distribution from the teacher's, as a function of the student's logits.

    `how` has `beta` (see `hone.objectives.divergence.jsd`), `temperature` and `top_k` (None is the whole vocabulary; otherwise
    the teacher's likeliest tokens, and all others as one); or `by_rank`, for a teacher with other tokens. Raises C052 where there
    is neither a teacher nor what it said.
    """
    said = _cached(batch) if LOGP in batch.facts else _live(teacher, batch, how.get("temperature", 1.0), how.get("top_k"))
    if how.get("by_rank"):
        return lambda logits_CV, rows: sorted_distance(torch.log_softmax(logits_CV, -1), said(rows)[1].to(logits_CV.dtype))
    beta = how["beta"]

    def read(logits_CV: Tensor, rows: slice) -> Tensor:
        student_CV = torch.log_softmax(logits_CV, -1)
        ids_CK, teacher_CK = said(rows)
        teacher_CK = teacher_CK.to(student_CV.dtype)
        if ids_CK is None:
            return jsd(student_CV, teacher_CK, beta)
        return jsd(folded(student_CV, ids_CK), with_rest(teacher_CK), beta)

    return read


def _cached(batch: Batch) -> Said:
    return lambda rows: (batch.facts[IDS][rows].long() if IDS in batch.facts else None, batch.facts[LOGP][rows])


def _live(teacher: Policy | Say | None, batch: Batch, temperature: float, top_k: int | None) -> Said:
    if teacher is None:
        raise HoneError("C052", "there is no teacher to learn from", where="model.teacher", fix="name one: model.teacher=FOLDER_OR_HUB_ID")
    if callable(teacher):
        told_NK = teacher(batch)[LOGP].to(batch.tokens_T.device)
        return lambda rows: (None, told_NK[rows])
    with torch.no_grad():
        hidden_ND = teacher.hidden(batch)[batch.read_N]
    head = teacher.head(temperature)
    return lambda rows: likeliest(head.logits(hidden_ND[rows]), top_k)


@torch.no_grad()
def likeliest(logits_CV: Tensor, top_k: int | None) -> tuple[Tensor | None, Tensor]:
    """Log-probabilities of the whole vocabulary, or of the likeliest tokens with their ids."""
    logp_CV = torch.log_softmax(logits_CV, -1)
    if top_k is None or top_k >= logp_CV.shape[-1]:
        return None, logp_CV
    best = logp_CV.topk(top_k, -1)
    return best.indices, best.values


def teacher_says(teacher: Policy, how: Mapping[str, Any]) -> Callable[[Batch], dict[str, Tensor]]:
    """What a teacher with the same tokens tells of the reads of a batch, as facts to be kept (see `IDS`, `LOGP`)."""
    head, top_k = teacher.head(how.get("temperature", 1.0)), how.get("top_k")

    def say(batch: Batch) -> dict[str, Tensor]:
        batch = batch.to(teacher.device)
        hidden_ND = teacher.hidden(batch)[batch.read_N]
        parts = [likeliest(head.logits(hidden_ND[rows]), top_k) for rows in chunks(len(hidden_ND), head.chunk())]
        ids = [ids_CK.int() for ids_CK, _ in parts if ids_CK is not None]
        said = {LOGP: torch.cat([logp_CK for _, logp_CK in parts])}
        return said | ({IDS: torch.cat(ids)} if ids else {})

    return say
