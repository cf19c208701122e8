"""The memory plan: sizes that are known from elsewhere, and what must hold whatever the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hone.core.errors import HoneError
from hone.plan.clock import Effort, disk, duration, operations
from hone.plan.fit import RESERVE, changes, fits, largest_batch, longest_context, settle, ways
from hone.plan.hardware import Gpu, Hardware
from hone.plan.layers import LORA, Adapters, adapters, largest, linears, total
from hone.plan.machines import GPUS, here, named
from hone.plan.memory import CHUNK, PHASES, Work, memory, weight_bytes
from hone.plan.shapes import facts_of

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip
PLAIN = {"method": "lora", **LORA}


def work(**values: Any) -> Work:
    facts = facts_of(LLAMA)
    layers = linears(facts)
    own = adapters(facts, PLAIN, layers)
    assert own is not None
    given = {"adapters": own, "tokens": 8192, "reads": 4096, "eval_tokens": 8192, "eval_reads": 4096, "dtype": "bfloat16", "device": "cuda"}
    return Work(facts=facts, linear=total(layers), largest=largest(layers), **given | values)  # type: ignore[arg-type]


def test_adapters_of_llama_8b_are_41_943_040_numbers() -> None:
    assert work().adapters.trainable == 41_943_040
    attention = adapters(facts_of(LLAMA), PLAIN | {"targets": ("q_proj", "v_proj")}, linears(facts_of(LLAMA)))
    assert attention is not None and attention.trainable == 6_815_744


def test_targets_and_layers_are_chosen_as_the_method_chooses() -> None:
    facts = facts_of(LLAMA)
    half = adapters(facts, PLAIN | {"layers": tuple(range(16))}, linears(facts))
    rest = adapters(facts, PLAIN | {"exclude": (".*mlp.*",)}, linears(facts))
    assert half is not None and half.trainable * 2 == 41_943_040
    assert rest is not None and rest.trainable == 13_631_488
    assert adapters(facts, PLAIN | {"method": "dora"}, linears(facts)) is None, "only its own code knows"


def test_weights_in_each_type() -> None:
    parameters = work().facts.parameters
    assert parameters == 8_030_261_248
    assert weight_bytes(work()) == 2 * parameters and weight_bytes(work(dtype="float32")) == 4 * parameters
    assert weight_bytes(work(quantised="nf4")) == pytest.approx(5.70e9, rel=0.01), "NF4 with double quantisation, as measured by others"


def test_every_phase_is_told_part_by_part() -> None:
    found = memory(work(samples=4, sample_tokens=512))
    assert tuple(phase.name for phase in found.phases) == PHASES
    assert found.peak == max(phase.total for phase in found.phases)
    assert found["generation"].parts["keys and values"] == 2 * 32 * 8 * 128 * 2 * 4 * 512
    assert found.dominating in found.fullest.parts


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"tokens": 16384}, {"tokens": 8192}),
        ({}, {"recompute": True}),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}),
        ({}, {"quantised": "nf4"}),
        ({"reference": True}, {}),
        ({"moments": 8.0}, {"moments": 2.0}),
        ({"other_weights": 10**9}, {}),
    ],
)
def test_more_takes_more(more: dict[str, Any], less: dict[str, Any]) -> None:
    assert memory(work(**more)).peak > memory(work(**less)).peak


def test_full_tuning_takes_sixteen_bytes_a_parameter_and_more() -> None:
    facts = facts_of(LLAMA)
    every = adapters(facts, {"method": "full"}, [])
    assert every is not None
    found = memory(work(adapters=every))
    assert found["optimiser"].total > 16 * facts.parameters
    assert "merge" not in [phase.name for phase in found.phases]


def test_the_chunk_of_the_loss_is_the_one_that_is_computed() -> None:
    from hone.models.logprob import CHUNK_BYTES

    assert CHUNK == CHUNK_BYTES


def test_the_largest_batch_is_the_last_that_fits() -> None:
    capacity = 40 * 10**9
    most = largest_batch(work(), capacity)

    def at(tokens: int) -> Work:
        return work(tokens=tokens, reads=tokens // 2, eval_tokens=tokens, eval_reads=tokens // 2)

    assert fits(at(most), capacity) and not fits(at(most + 8), capacity)
    assert longest_context(work(), capacity) > most
    assert largest_batch(work(), 10**9) == 0


def test_ways_are_legal_cheapest_first_and_really_fit() -> None:
    full = work(adapters=Adapters(8_030_261_248, 0, 0, 0))
    capacity = GPUS["rtx4090"].usable
    plain = work().adapters
    found = ways(full, capacity, changes(full, longest=2048, lora=plain, quantiser=True))
    assert found and [way.cost for way in found] == sorted(way.cost for way in found)
    assert all(way.peak * (1 + RESERVE) <= capacity for way in found)
    assert all("tuning.method" in way.settings or "model.quantise" in way.settings for way in found)
    assert ways(full, 10**9, changes(full, longest=2048, lora=plain, quantiser=True)) == []


HARDWARE = {"token_budget": None, "recompute": "auto"}


def cut(budget: int) -> Work:
    return replace(work(), tokens=budget, reads=budget // 2, eval_tokens=budget, eval_reads=budget // 2)


def test_recompute_only_when_needed() -> None:
    rich = settle(HARDWARE, 2048, 200 * 10**9, cut)
    assert (rich.budget, rich.recompute) == (16384, False)
    tight = settle(HARDWARE, 2048, int(memory(cut(4096)).peak * 1.05), cut)
    assert (tight.budget, tight.recompute) == (4096, False), "smaller micro-batches come first"
    poor = settle(HARDWARE, 2048, int(memory(cut(2048)).peak * 0.95), cut)
    assert poor.recompute
    none = settle(HARDWARE, 2048, 10**9, cut)
    assert (none.budget, none.recompute) == (2048, True)


def test_what_is_asked_for_is_kept() -> None:
    assert settle({"token_budget": 5000, "recompute": "never"}, 2048, 10**9, cut).advice == ()
    assert settle({"token_budget": None, "recompute": "always"}, 2048, 200 * 10**9, cut).recompute


def test_machines_by_name_and_by_size() -> None:
    assert named("H100") is named("NVIDIA h100") is GPUS["h100"]
    assert named("4090") is GPUS["rtx4090"]
    assert named("24GB").memory == 24 * 10**9 and named("24GB").flops is None
    assert named("cpu:16GB").device == "cpu"
    with pytest.raises(HoneError) as caught:
        named("h1000")
    assert caught.value.code == "C003" and "h100" in caught.value.fix
    gpu = Gpu("NVIDIA H100 80GB HBM3", 85 * 10**9, 80 * 10**9, "1", (9, 0))
    assert here(Hardware(4, 16 * 10**9, 8 * 10**9, 10**9, (gpu,))).flops == GPUS["h100"].flops
    assert here(Hardware(4, 16 * 10**9, 8 * 10**9, 10**9, (gpu,)), "cpu").memory == 8 * 10**9


def test_time_energy_and_price() -> None:
    effort = Effort(tokens=1e6, eval_tokens=0, mean_length=512, reads=1e6)
    lora = operations(work().facts, work().adapters, effort, recompute=False)
    assert lora == pytest.approx(4 * 8.03e9 * 1e6, rel=0.1), "four operations a weight and token: nothing frozen gets a gradient"
    full = operations(work().facts, Adapters(8_030_261_248, 0, 0, 0), effort, recompute=False)
    assert full / lora == pytest.approx(1.5, rel=0.05)
    assert operations(work().facts, work().adapters, effort, recompute=True) / lora == pytest.approx(1.5, rel=0.1)
    time = duration(lora, 1e6, GPUS["h100"], price=3.0, kwh_price=0.25)
    assert time is not None and time.kwh is not None and time.money is not None
    assert time.kwh == pytest.approx(0.7 * time.seconds / 3600)
    assert time.money == pytest.approx(3 * time.seconds / 3600 + 0.25 * time.kwh)
    assert time.low < time.seconds < time.high
    measured = duration(lora, 1e6, GPUS["h100"], speed=1000.0)
    assert measured is not None and measured.seconds == 1000 and measured.money is None
    assert duration(lora, 1e6, named("24GB")) is None
    assert disk(work().facts, work().adapters, keep=2, width=2)["artifact"] == 167_772_160
