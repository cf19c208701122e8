"""A model's size from its config.json, against the models that transformers builds from the same file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from hone.core.errors import HoneError
from hone.plan.shapes import check_length, facts_of, model_facts

SMALL: dict[str, Any] = {
    "vocab_size": 4096, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 512, "pad_token_id": 0,
}  # fmt: skip
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("llama", SMALL),
    ("llama", SMALL | {"tie_word_embeddings": True}),
    ("qwen3", SMALL | {"head_dim": 64}),
    ("qwen2", SMALL),
    ("mistral", SMALL),
    ("gemma2", SMALL | {"head_dim": 32}),
    ("phi3", SMALL),
    ("mixtral", SMALL | {"num_local_experts": 4}),
    ("qwen3_moe", SMALL | {"num_experts": 4, "moe_intermediate_size": 128, "head_dim": 32}),
    ("gpt_neox", {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}),
    ("gpt2", {"vocab_size": 4096, "n_embd": 256, "n_layer": 4, "n_head": 8, "n_positions": 512}),
]


@pytest.mark.parametrize(("family", "sizes"), MODELS, ids=[f"{family}-{i}" for i, (family, _) in enumerate(MODELS)])
def test_the_estimate_is_close_and_the_count_exact(tmp_path: Path, family: str, sizes: dict[str, Any]) -> None:
    config = CONFIG_MAPPING[family](**sizes)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = sum(parameter.numel() for parameter in model.parameters())
    estimate = facts_of(config.to_dict())
    assert not estimate.exact
    assert estimate.family == family
    assert estimate.parameters == pytest.approx(real, rel=0.02)
    tied = "lm_head.weight" if model.config.tie_word_embeddings else ""
    stored = {name: torch.zeros(p.shape, dtype=torch.bfloat16) for name, p in model.named_parameters() if name != tied}
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict(), default=str))
    exact = model_facts(tmp_path)
    assert exact.exact
    assert exact.parameters == real
    assert (exact.hidden, exact.layers, exact.heads, exact.vocab, exact.context) == (256, 4, 8, 4096, 512)


def test_multimodal_configurations_are_read_by_their_text_part() -> None:
    facts = facts_of({"model_type": "gemma3", "text_config": SMALL | {"hidden_size": 320}, "vision_config": {"hidden_size": 7}})
    assert facts.hidden == 320
    assert facts.family == "gemma3"


@pytest.mark.parametrize("value", [0, -1, 1.5, "8", True, [], 10**13, {}])
def test_sizes_that_are_no_sizes(value: object) -> None:
    with pytest.raises(HoneError) as caught:
        facts_of({"model_type": "llama", **SMALL, "hidden_size": value})
    assert caught.value.code == "M013"
    assert "hidden_size" in caught.value.what
    assert caught.value.fix


def test_a_missing_folder_or_a_huge_config(tmp_path: Path) -> None:
    for content in (None, b" " * 40_000_000):
        if content is not None:
            (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(HoneError) as caught:
            model_facts(tmp_path)
        assert caught.value.code == "M013"


def test_quantised_weights_are_told_but_not_counted(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **SMALL, "quantization_config": {"quant_method": "awq"}}))
    facts = model_facts(tmp_path)
    assert facts.quantised == "awq"
    assert not facts.exact


def test_lengths_beyond_the_context_are_refused() -> None:
    check_length(512, 512)
    check_length(None, 10**6)
    with pytest.raises(HoneError) as caught:
        check_length(512, 513)
    assert caught.value.code == "M002"
    assert "512" in caught.value.fix


def test_no_torch_is_imported() -> None:
    script = (
        "import sys, hone.plan.shapes, hone.plan.hardware, hone.plan.headers; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert answer.stdout.strip() == "[]"
