"""Tokens are drawn from exactly the distribution that the settings describe, with transformers' warpers as the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.rollout import warp
from hone.rollout.warp import Sampling, pick

SETTINGS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.7},
    {"temperature": 1.3, "top_k": 5},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 0.9, "min_p": 0.1},
    {"temperature": 1.5, "top_k": 12, "top_p": 0.6, "min_p": 0.15},
    {"temperature": 1.0, "top_p": 0.01},
]


def oracle(logits: torch.Tensor, how: Sampling) -> torch.Tensor:
    steps = [TemperatureLogitsWarper(how.temperature)]
    steps += [TopKLogitsWarper(how.top_k)] if how.top_k else []
    steps += [TopPLogitsWarper(how.top_p)] if how.top_p < 1 else []
    steps += [MinPLogitsWarper(how.min_p)] if how.min_p else []
    return LogitsProcessorList(steps)(torch.zeros(1, 1, dtype=torch.long), logits.clone()).softmax(-1)


def drawn(logits: torch.Tensor, how: Sampling, count: int = 20_000) -> torch.Tensor:
    """Share of each token when the uniform numbers are spread evenly over [0, 1)."""
    tokens, _ = pick(logits.expand(count, -1), how, [(i + 0.5) / count for i in range(count)])
    return tokens.bincount(minlength=logits.shape[1]) / count


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_shares_are_those_of_the_usual_warpers(settings: dict[str, Any]) -> None:
    logits, how = 2 * torch.randn(1, 40, generator=torch.Generator().manual_seed(3)), Sampling(**settings)
    torch.testing.assert_close(drawn(logits, how), oracle(logits, how)[0], rtol=0, atol=2e-4)


def test_top_p_sorts_only_as_many_candidates_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, how = torch.randn(1, 300, generator=torch.Generator().manual_seed(0)), Sampling(temperature=1.0, top_p=0.9)
    monkeypatch.setattr(warp, "CANDIDATES", 2)
    torch.testing.assert_close(drawn(logits, how), oracle(logits, how)[0], rtol=0, atol=2e-4)


@pytest.mark.parametrize("settings", [{}, *SETTINGS], ids=str)
def test_the_log_probability_is_that_of_the_unwarped_distribution(settings: dict[str, Any]) -> None:
    logits = 3 * torch.randn(7, 40, generator=torch.Generator().manual_seed(1))
    tokens, logps = pick(logits, Sampling(**settings), [0.1 * i for i in range(7)])
    expected = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logps, expected, rtol=0, atol=1e-5)


def test_greedy_takes_the_likeliest() -> None:
    logits = torch.randn(5, 40)
    assert pick(logits, Sampling(), [0.99] * 5)[0].tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_draw_tokens_of_positive_share(uniform: float) -> None:
    logits = torch.full((1, 9), float("-inf"))
    logits[0, 3:6] = torch.tensor([0.1, 0.2, 0.3])
    token = pick(logits, Sampling(temperature=1.0), [uniform])[0].item()
    assert token == (3 if uniform == 0 else 5)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"min_p": 1}, {"top_k": -1}, {"max_new_tokens": 0}])
def test_values_without_meaning_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(HoneError, match="C001"):
        parse(Sampling, wrong, section="sampling")
