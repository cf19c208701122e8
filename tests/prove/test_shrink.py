"""A small copy has the kinds of layers, the grouping of heads and the options of the large model; its method keeps its loudness."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import Gemma2Config, GPT2Config, LlamaConfig, MixtralConfig, Phi3Config, PreTrainedConfig

from hone.core.errors import HoneError
from hone.prove.shrink import LARGEST, shrink, shrunken
from hone.tuning.adalora import AdaLora
from hone.tuning.freeze import Freeze
from hone.tuning.fusion import Fusion
from hone.tuning.lora import Lora

LONG = {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "rope_theta": 10000.0}
LARGE: dict[str, PreTrainedConfig] = {
    "llama 70b": LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8
    ),
    "gemma2": Gemma2Config(vocab_size=999),
    "gpt2": GPT2Config(vocab_size=999, n_embd=1600, n_head=25, n_layer=48),
    "mixtral": MixtralConfig(vocab_size=999),
    "phi3": Phi3Config(
        vocab_size=999, pad_token_id=0, original_max_position_embeddings=4096, max_position_embeddings=131072, rope_parameters=LONG
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_model_becomes_small_and_stays_itself(name: str) -> None:
    large = LARGE[name]
    model = shrink(large)
    small: Any = model.config
    assert type(small) is type(large)
    assert sum(p.numel() for p in model.parameters()) < LARGEST // 2
    keys = [config.to_dict().get("num_key_value_heads") or config.num_attention_heads for config in (small, large)]
    assert small.num_attention_heads * keys[1] == keys[0] * large.num_attention_heads
    assert small.vocab_size == large.vocab_size
    logits = model(input_ids=torch.arange(3, 40)[None]).logits
    assert torch.isfinite(logits).all() and logits.std() > 0.1


def test_every_kind_of_layer_is_kept() -> None:
    model = shrink(LARGE["gemma2"])
    assert set(model.config.layer_types) == {"sliding_attention", "full_attention"}
    assert model.config.sliding_window < 30 and model.config.final_logit_softcapping == LARGE["gemma2"].final_logit_softcapping


def test_experts_are_fewer_and_still_chosen() -> None:
    small = shrink(LARGE["mixtral"]).config
    assert small.num_local_experts == 4 and small.num_experts_per_tok == 2


def test_the_large_configuration_is_left_alone() -> None:
    before = LARGE["llama 70b"].to_dict()
    shrink(LARGE["llama 70b"])
    assert LARGE["llama 70b"].to_dict() == before


@pytest.mark.parametrize("tuning", [Lora(rank=64), Lora(rank=64, alpha=16), Lora(rank=64, alpha=16, rslora=True), Lora(rank=4)])
def test_a_smaller_rank_is_as_loud(tuning: Lora) -> None:
    small = shrunken(tuning, 2)
    assert isinstance(small, Lora)
    assert small.rank <= 8 and small.scale == pytest.approx(tuning.scale)


def test_layers_are_those_that_there_are() -> None:
    small = shrunken(Lora(layers=(0, 20, 31)), 2)
    assert isinstance(small, Lora) and small.layers == (0,)
    assert getattr(shrunken(Lora(layers=(30, 31)), 2), "layers") == (1,)  # noqa: B009 (a field of the subclass)
    last = shrunken(Freeze(last=8), 2)
    assert isinstance(last, Freeze) and last.last == 2


def test_ranks_still_have_something_to_prune() -> None:
    small = shrunken(AdaLora(rank=12, target_rank=8), 2)
    assert isinstance(small, AdaLora) and small.target_rank < small.rank


def test_trained_adapters_do_not_shrink() -> None:
    with pytest.raises(HoneError, match="M111"):
        shrunken(Fusion(adapters=("a", "b")), 2)
