"""Writing through the cache gives what the model's own forward gives, for every kind of attention, or is not done at all."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from hone.core.errors import HoneError
from hone.models import decode
from hone.models.decode import KVCache, common_prefix, probe
from hone.models.heads import head_of
from hone.models.policy import using_attention

SIZES = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 96}
GROUPED = {"intermediate_size": 48, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "qwen3": GROUPED | {"head_dim": 16},
    "gpt2": {"n_inner": 48, "eos_token_id": 1, "bos_token_id": 2},
    "phi": GROUPED | {"num_key_value_heads": 4, "partial_rotary_factor": 0.5},
    "mistral": GROUPED | {"sliding_window": 8},
    "gemma2": GROUPED | MIXED | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 10.0},
    "gemma3_text": GROUPED | MIXED,
    "gpt_oss": GROUPED
    | MIXED
    | {"num_local_experts": 2, "num_experts_per_tok": 1, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
}
FOREIGN: dict[str, dict[str, Any]] = {
    "bloom": {"n_head": 4, "eos_token_id": 1, "bos_token_id": 2},
    "mamba": {"state_size": 8, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
}


def build(family: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    options = SIZES | (FAMILIES | FOREIGN)[family] | changes
    if family == "mamba":
        options = {key: value for key, value in options.items() if key not in ("num_attention_heads", "max_position_embeddings")}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**options)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def own_logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].float()


def text(length: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, 97) for _ in range(length)]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_unlike_lengths_in_portions_give_the_models_own_logits(family: str) -> None:
    model = build(family)
    stock = model.config._attn_implementation
    assert probe(model, stock).works
    texts, cache = [text(30), text(21, 1), text(1, 2), text(17, 3)], KVCache(6, 40)
    rows, starts = [4, 1, 0, 2], [0, 0, 0, 0]
    with using_attention(model, decode.NAME):
        for ends in ([11, 20, 1, 9], [12, 21, 1, 10], [30, 21, 1, 17]):
            moving = [i for i in range(4) if ends[i] > starts[i]]
            new = [texts[i][starts[i] : ends[i]] for i in moving]
            logits = decode.forward(model, head_of(model), cache, [rows[i] for i in moving], new, [starts[i] for i in moving])
            with using_attention(model, stock):
                own = torch.stack([own_logits(model, texts[i][: ends[i]]) for i in moving])
            torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-4)
            starts = ends
    assert [cache.held[row] for row in rows] == texts


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_step_of_neighbouring_rows_reads_the_cache_in_place(family: str) -> None:
    model, cache, texts = build(family), KVCache(4, 32), [text(9), text(14, 1), text(3, 2)]
    own = torch.stack([own_logits(model, tokens) for tokens in texts])
    with using_attention(model, decode.NAME):
        decode.forward(model, head_of(model), cache, range(3), [tokens[:-1] for tokens in texts], [0, 0, 0])
        step = decode.forward(model, head_of(model), cache, range(3), [tokens[-1:] for tokens in texts], [8, 13, 2])
    torch.testing.assert_close(step, own, rtol=1e-4, atol=1e-4)


def test_scores_are_computed_a_few_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = build("gemma2"), text(40)
    own = own_logits(model, tokens)
    monkeypatch.setattr(decode, "SCORES", 300)
    with using_attention(model, decode.NAME):
        ours = decode.forward(model, head_of(model), KVCache(1, 40), [0], [tokens], [0])
    torch.testing.assert_close(ours[0], own, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FOREIGN)
def test_what_does_not_agree_is_not_used(family: str) -> None:
    model = build(family)
    assert not probe(model, model.config._attn_implementation).works


def test_a_window_that_never_arrives_limits_how_far_the_cache_is_trusted() -> None:
    model = build("llama")
    assert probe(model, "sdpa").horizon is None
    model.config.sliding_window = 64  # as in architectures that pass their window on in a mask only
    assert probe(model, "sdpa").horizon == 64
    assert probe(build("mistral", sliding_window=64), "sdpa").horizon is None


def test_the_models_attention_and_mode_are_put_back() -> None:
    model = build("llama").train()
    probe(model, "sdpa")
    assert model.config._attn_implementation == "sdpa"
    assert model.training
    own_logits(model, text(5))


def test_without_a_cache_it_refuses() -> None:
    model = build("llama")
    with using_attention(model, decode.NAME), pytest.raises(HoneError, match="M010"):
        own_logits(model, text(5))


def filled(model: PreTrainedModel, tokens: list[int], rows: int = 3) -> KVCache:
    cache = KVCache(rows, 48)
    with using_attention(model, decode.NAME):
        decode.forward(model, head_of(model), cache, [0], [tokens], [0])
    return cache


@pytest.mark.parametrize("change", ["recall", "copy", "grow"])
def test_what_is_held_can_be_copied_gone_on_from_and_given_more_room(change: str) -> None:
    model, tokens = build("llama"), text(40)
    cache, row, start = filled(model, [*tokens[:30], 5, 6]), 2, 30
    if change == "recall":
        assert cache.recall(row, tokens) == start
    elif change == "copy":
        cache.copy(0, row, start)
    else:
        cache.grow(64)
        row = 0
        assert cache.length == 64
    with using_attention(model, decode.NAME):
        ours = decode.forward(model, head_of(model), cache, [row], [tokens[start:]], [start])
    torch.testing.assert_close(ours[0], own_logits(model, tokens), rtol=1e-4, atol=1e-4)
    assert cache.held[row] == tokens


def test_recall_leaves_at_least_one_token_to_compute_and_scorns_short_beginnings() -> None:
    model, tokens = build("llama"), text(30)
    cache = filled(model, tokens)
    assert cache.recall(1, tokens) == 29
    assert cache.recall(1, tokens[: decode.WORTH]) == 0
    assert cache.recall(1, text(30, 9)) == 0


def test_bytes_per_token_are_what_the_tensors_take() -> None:
    model = build("qwen3")
    assert probe(model, "sdpa").bytes_per_token == 2 * 2 * 2 * 16 * 4


def test_common_prefix_against_the_plain_definition() -> None:
    rng = random.Random(0)
    for _ in range(300):
        a, b = ([rng.randrange(2) for _ in range(rng.randrange(9))] for _ in range(2))
        assert common_prefix(a, b) == next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
