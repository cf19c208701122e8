"""The type and the device of the weights, each chosen for a reason that is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hone.core.errors import HoneError
from hone.models.dtype import WORTH, choose_device, choose_dtype
from hone.models.probe import cpu_seconds
from hone.plan.shapes import ModelFacts, facts_of

CPU = torch.device("cpu")


def facts(hidden: int = 64) -> ModelFacts:
    config = {"model_type": "llama", "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    return facts_of(config | {"intermediate_size": 2 * hidden})


def test_a_name_is_obeyed_even_against_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_DTYPE", "float16")
    assert choose_dtype("bf16", CPU, facts()) == (torch.bfloat16, "as asked")
    assert choose_dtype("auto", CPU, facts()) == (torch.float16, "as HONE_DTYPE says")
    monkeypatch.setenv("HONE_DTYPE", "half")
    with pytest.raises(HoneError) as caught:
        choose_dtype("auto", CPU, facts())
    assert caught.value.code == "M020"
    assert caught.value.where == "HONE_DTYPE"


def test_auto_on_a_cpu_takes_the_faster_type_and_says_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_DTYPE", raising=False)
    dtype, reason = choose_dtype("auto", CPU, facts())
    ratio = cpu_seconds(torch.float32, 64, 128) / cpu_seconds(torch.bfloat16, 64, 128)
    assert dtype == (torch.bfloat16 if ratio >= WORTH else torch.float32)
    assert f"{max(ratio, 1 / ratio):.1f} times as fast" in reason
    assert "hidden size 64" in reason
    assert choose_dtype("auto", CPU, facts()) == (dtype, reason), "the probe is asked once for a process"


def test_a_model_too_large_for_float32_takes_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_DTYPE", raising=False)
    dtype, reason = choose_dtype("auto", CPU, replace(facts(), parameters=10**13))
    assert dtype == torch.bfloat16
    assert "40000.0 GB" in reason


def test_devices() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "quantum"):
        with pytest.raises(HoneError) as caught:
            choose_device(name)
        assert caught.value.code == "M020"
        assert caught.value.fix
