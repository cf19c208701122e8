"""The C function for Llama-like models gives the logits of the model's own modules, or steps back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from hone.models import decode, llama
from hone.models.decode import KVCache
from hone.models.kernels import cpu
from hone.models.llama import Llama, Unfit
from hone.tuning.lora import Lora, lora_layers

SIZES: dict[str, Any] = {"vocab_size": 97, "hidden_size": 60, "intermediate_size": 70, "num_hidden_layers": 2, "num_attention_heads": 6}
SIZES |= {"num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 128, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 32, "rope_theta": 1e4}},
    "mistral": {"sliding_window": 8},
    "qwen2": {"head_dim": 10, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": True, "attention_bias": True},
}
Build = Callable[..., PreTrainedModel]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if cpu.library("llama") is None:
        pytest.skip("no C compiler here, the modules write")


def build(family: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**SIZES | FAMILIES.get(family, {}) | changes)).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return model


def text(length: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, 97) for _ in range(length)]


@torch.no_grad()
def own(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].float()


def read_in_portions(one: Llama, texts: list[list[int]]) -> torch.Tensor:
    """Logits after the ends of some texts, in rows out of order, by prompts, single tokens and prompts again."""
    cache, rows, starts, last = KVCache(5, 100), [3, 0, 4], [0, 0, 0], torch.empty(0)
    for step in range(4):
        ends = [len(t) * (step + 1) // 4 if step != 1 else start + 1 for t, start in zip(texts, starts, strict=True)]
        new = [t[start:end] for t, start, end in zip(texts, starts, ends, strict=True)]
        last, starts = one.forward(cache, rows, new, starts), ends
    assert [cache.held[row] for row in rows] == texts
    return last


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_models_own(family: str, threads: int) -> None:
    model, texts, before = build(family), [text(80), text(33, 1), text(12, 2)], torch.get_num_threads()
    fit = decode.probe(model, "sdpa")
    assert llama.probe(model, "sdpa", fit).quick
    torch.set_num_threads(threads)
    ours = read_in_portions(Llama(model, fit.windows), texts)
    torch.set_num_threads(before)
    torch.testing.assert_close(ours, torch.stack([own(model, t) for t in texts]), rtol=1e-4, atol=1e-4)


def test_an_adapter_counts_while_it_is_there() -> None:
    model, texts = build("qwen3"), [text(40), text(20, 1), text(9, 2)]
    tuning = Lora(rank=5, targets=("q_proj", "gate_proj", "down_proj", "o_proj"))
    tuning.attach(model, seed=0)
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.b, std=0.3)
    tuned = read_in_portions(Llama(model, {}), texts)
    torch.testing.assert_close(tuned, torch.stack([own(model, t) for t in texts]), rtol=1e-4, atol=1e-4)
    with tuning.disabled(model):
        plain = read_in_portions(Llama(model, {}), texts)
        torch.testing.assert_close(plain, torch.stack([own(model, t) for t in texts]), rtol=1e-4, atol=1e-4)
    assert (plain - tuned).abs().max() > 0.1


def test_weights_that_bf16_holds_are_read_in_bf16_and_others_as_they_are() -> None:
    model, texts, narrow = build("llama"), [text(30), text(20, 1), text(9, 2)], llama.Narrow()
    for name, parameter in model.named_parameters():
        if "gate_proj" not in name:
            parameter.data = parameter.data.bfloat16().float()
    ours = read_in_portions(Llama(model, {}, narrow), texts)
    assert [half is None for half in narrow.values()].count(True) == 2
    torch.testing.assert_close(ours, torch.stack([own(model, t) for t in texts]), rtol=1e-4, atol=1e-4)


def test_a_model_in_bf16_is_read_as_if_its_weights_were_in_fp32() -> None:
    wide, texts = build("qwen3"), [text(30), text(20, 1), text(9, 2)]
    half = build("qwen3").bfloat16()
    half.model.rotary_emb = wide.model.rotary_emb  # frequencies stay in fp32 when a model is loaded
    wide.load_state_dict({name: weight.float() for name, weight in half.state_dict().items()})
    one = Llama(half, {})
    assert one.half
    torch.testing.assert_close(read_in_portions(one, texts), torch.stack([own(wide, t) for t in texts]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("what", ["gemma2", "phi3", "gelu", "dynamic", "hook", "fp64", "part"])
def test_what_it_does_not_know_is_left_to_the_modules(what: str) -> None:
    family = what if what in ("gemma2", "phi3") else "llama"
    rope = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}
    model = build(family, **({"dynamic": rope, "gelu": {"hidden_act": "gelu"}}.get(what, {})))
    if what == "hook":
        model.model.layers[0].register_forward_hook(lambda module, inputs, output: output)
    elif what == "fp64":
        model = model.double()
    elif what == "part":
        model.model.layers[1].mlp.more = torch.nn.Linear(2, 2)
    with pytest.raises(Unfit):
        Llama(model, {})


def test_another_scale_is_found_by_the_probe() -> None:
    model = build("llama")
    for layer in model.model.layers:
        layer.self_attn.scaling = 1.0
    fit = decode.probe(model, "sdpa")
    assert fit.works
    assert not llama.probe(model, "sdpa", fit).quick


def test_it_reads_weights_where_they_are() -> None:
    model, cache = build("llama"), KVCache(1, 20)
    one = Llama(model, {})
    before = one.forward(cache, [0], [text(5)], [0])
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    torch.testing.assert_close(one.forward(cache, [0], [text(5)], [0]), before * 2)
