"""Bugs that other toolkits have, each shown to be absent here.

B1  AdaLoRA that never prunes: `tests/tuning/test_adalora.py`
B2  prefix tuning that breaks when blocks are computed again: `tests/tuning/test_prologues.py`
B3  LoRA at the learning rate of full tuning: below
B4  a method that others do not know, refused with a bare KeyError: `tests/tuning/test_peft_parity.py`
B5  gates of UniPELT that look at later tokens: `tests/tuning/test_adapters.py`
B6  a skip list of one's own that quantises the head: below
B7  alpha below the rank, and questions that are learned beside their answers: below
B8  full tuning of 4-bit weights that quietly becomes something else: `tests/recipe/test_quantised.py`
"""

from __future__ import annotations

from hone.data.settings import DataSettings
from hone.plan.advise import learning_rate
from hone.plan.packed import Scheme, config_of
from hone.tuning import METHODS
from hone.tuning.lora import Lora


def test_b3_adapters_start_ten_times_faster_than_full_tuning() -> None:
    rates = {name: learning_rate(METHODS[name].about.learning_rate, 4096).value for name in ("lora", "dora", "full")}
    assert rates == {"lora": 2e-4, "dora": 2e-4, "full": 2e-5}


def test_b6_the_head_is_never_quantised_whatever_else_is_skipped() -> None:
    said = config_of(Scheme("nf4", double=True, skip=("model.layers.0.mlp.down_proj",)), "lm_head")
    assert said["llm_int8_skip_modules"] == ["lm_head", "model.layers.0.mlp.down_proj"]


def test_b7_a_change_is_not_turned_down_and_questions_are_not_learned() -> None:
    assert [Lora(rank=rank).scale for rank in (4, 16, 128)] == [2.0, 2.0, 2.0]
    assert DataSettings(train="x").learn == "assistant"
