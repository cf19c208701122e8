"""What a frozen head can say at best: nothing single where rows were never trained, whatever hidden state it is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hone.demo import SEEDLING
from hone.models.reach import Search, last_norm, mute, reach
from tests import nets


def taught(family: str) -> PreTrainedModel:
    """A head with rows long enough to be sure of any token, but for four that lie on one point."""
    torch.manual_seed(0)
    model = nets.MODELS[family]()
    with torch.no_grad():
        table = model.get_output_embeddings().weight
        table.copy_(3 * torch.nn.functional.normalize(torch.randn(table.shape), dim=1))
        table[10:14] = table[10] + 1e-3 * torch.randn(4, table.shape[1])
    return model


@pytest.mark.parametrize("family", nets.MODELS)
def test_rows_on_one_point_share_the_chance(family: str) -> None:
    model = taught(family)
    found = mute(model, [5, 10, 12, 40])
    assert found.keys() == {10, 12} and all(0.2 < chance < 0.3 for chance in found.values())
    assert reach(model, [5])[5] > 0.9


@pytest.mark.parametrize("family", nets.MODELS)
def test_no_hidden_state_does_better_than_what_was_found(family: str) -> None:
    model = taught(family)
    states = last_norm(model)(torch.randn(4096, 32, generator=torch.Generator().manual_seed(1)))
    seen = model.get_output_embeddings()(states).softmax(-1).max(0).values
    for token, chance in reach(model, [10, 40]).items():
        assert seen[token] <= chance + 1e-3


@pytest.mark.parametrize("family", nets.MODELS)
def test_a_bound_that_spares_the_search_is_never_below_what_it_finds(family: str) -> None:
    for model in (taught(family), nets.MODELS[family]()):
        search = Search(model)
        found = dict(search.highest([5, 10, 40]))
        for token, gap_V in search.gaps([5, 10, 40]):
            assert 1 / (-gap_V).exp().sum() >= found[token] - 1e-3


def test_many_tokens_are_asked_for_at_once() -> None:
    model = taught("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[20:60] = model.get_output_embeddings().weight[20]
    found = mute(model, range(64))
    assert found.keys() >= set(range(20, 60)) and 5 not in found and all(0 < chance < 0.5 for chance in found.values())


def test_an_untrained_head_has_no_mute_tokens() -> None:
    assert mute(nets.llama(), [5]) == {}


def test_the_seedling_cannot_say_the_mark_that_it_never_read() -> None:
    model = AutoModelForCausalLM.from_pretrained(Path(SEEDLING), dtype=torch.float32)
    assert mute(model, [0, 2]).keys() == {2}, "the end of a document it knows, the end of a turn it does not"
