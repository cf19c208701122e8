"""A teacher with other tokens: it reads the same text in its own tokens, and its probabilities are sorted, since ids mean nothing.

Shape legend: R learned tokens of the student's sequence, K the teacher's likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from hone.core.types import Batch, Sequence
from hone.data.batching import pack
from hone.models.teacher import LOGP

if TYPE_CHECKING:
    from hone.models.policy import Policy


def foreign_teacher_says(
    teacher: Policy, theirs: PreTrainedTokenizerBase, mine: PreTrainedTokenizerBase, *, top_k: int = 256
) -> Callable[[Batch], dict[str, Tensor]]:
    """What the teacher tells of each read of a batch: sorted log-probabilities of its likeliest tokens.

    The n-th learned token of the student meets the n-th of the teacher (arXiv 2402.12030). Where the teacher's answer has ended
    there is no probability at all, a constant distance that pulls nowhere.
    """

    def say(batch: Batch) -> dict[str, Tensor]:
        return {LOGP: torch.cat([_sorted(teacher, *each, top_k) for each in _retold(batch, theirs, mine)])}

    return say


def _retold(batch: Batch, theirs: PreTrainedTokenizerBase, mine: PreTrainedTokenizerBase) -> list[tuple[Sequence, int]]:
    """Every sequence in the teacher's tokens, and how many learned tokens the student has there."""
    found = []
    for row, leaf in enumerate(batch.leaf_S):
        reads_R = batch.read_N[batch.row_N == row]
        path = batch.path(leaf)
        first = int((path == reads_R[0]).nonzero()[0]) + 1 if len(reads_R) else len(path)
        ids = batch.tokens_T[path].tolist()
        prompt, answer = (
            theirs.encode(mine.decode(part, skip_special_tokens=True), add_special_tokens=False) for part in (ids[:first], ids[first:])
        )
        before = prompt or [theirs.bos_token_id or theirs.eos_token_id or 0]
        found.append((Sequence([*before, *answer], [0.0] * len(before) + [1.0] * len(answer)), len(reads_R)))
    return found


def _sorted(teacher: Policy, sequence: Sequence, reads: int, top_k: int) -> Tensor:
    batch = pack([(sequence,)]).to(teacher.device)
    head = teacher.head()
    width = min(top_k, len(head.weight_VD))
    said = torch.full((reads, width), -torch.inf)
    known = batch.read_N[:reads]
    if len(known):
        logp_RK = torch.log_softmax(head.logits(teacher.hidden(batch)[known]), -1).topk(width, -1).values
        said[: len(known)] = logp_RK.cpu()
    return said
