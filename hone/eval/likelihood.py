"""How well a policy predicts held-out text: loss, perplexity, and bits per byte, which models of any tokenizer share.

Shape legend: S sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hone.core.types import Group, Sequence
from hone.data.batching import micro_batches
from hone.eval.intervals import Statistic
from hone.models.policy import Policy

BYTES = "bytes"


@torch.no_grad()
def likelihood(policy: Policy, tokenizer: Any, groups: Iterable[Group], *, budget: int = 4096) -> NDArray[np.float64]:
    """(S, 3): surprise in nats, learned tokens, and bytes of their text, for each sequence that has any; always in the same order.

    Special tokens, such as the end of an answer, cost surprise and have no bytes.
    """
    device = next(policy.model.parameters()).device
    training = policy.model.training
    policy.model.eval()
    rows: list[NDArray[np.float64]] = []
    for batch in micro_batches(list(_with_bytes(groups, tokenizer)), budget):
        signals = policy.signals(batch.to(device), "logp")
        surprise_S, tokens_S = -signals.sum(signals.logp), signals.sum(torch.ones_like(signals.logp))
        rows.append(torch.stack([surprise_S.cpu(), tokens_S.cpu(), batch.facts[BYTES]], 1).double().numpy())
    policy.model.train(training)
    return np.concatenate(rows) if rows else np.zeros((0, 3))


def _with_bytes(groups: Iterable[Group], tokenizer: Any) -> Iterator[Group]:
    for group in groups:
        for sequence in group:
            if sequence.learned:
                learned = [token for token, weight in zip(sequence.tokens[1:], sequence.weights[1:], strict=True) if weight]
                text = tokenizer.decode(learned, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                yield (Sequence(sequence.tokens, sequence.weights, {BYTES: float(len(text.encode("utf-8")))}, sequence.origin),)


def loss(rows: NDArray[Any]) -> float:
    """Nats for each learned token."""
    return float(rows[:, 0].sum() / rows[:, 1].sum())


def perplexity(rows: NDArray[Any]) -> float:
    """Among how many equally likely tokens the model seems to choose."""
    return math.exp(min(loss(rows), 700.0))


def bits_per_byte(rows: NDArray[Any]) -> float:
    """Bits for each byte of the text, whatever the tokenizer."""
    return float(rows[:, 0].sum() / math.log(2) / max(1.0, rows[:, 2].sum()))


STATISTICS: dict[str, Statistic] = {"loss": loss, "perplexity": perplexity, "bits_per_byte": bits_per_byte}
