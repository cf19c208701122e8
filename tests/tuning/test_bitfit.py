"""Biases that a bias-free model was given: folded in, saved, and read again by transformers as a plain model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hone.core.errors import HoneError
from hone.models.policy import using_attention
from hone.tuning.bitfit import BitFit
from tests import nets

TOKENS = torch.arange(3, 20)[None]


@pytest.mark.parametrize(("family", "targets"), [("llama", "all-linear"), ("qwen3", ("q_proj", "k_proj", "v_proj", "o_proj"))])
def test_folded_biases_come_back_from_the_disk(family: str, targets: tuple[str, ...] | str, tmp_path: Path) -> None:
    one = nets.policy(nets.MODELS[family], BitFit(targets=targets, biases="added"))
    one.tuning.merge(one.model)
    one.model.save_pretrained(tmp_path)  # type: ignore[operator]
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad(), using_attention(one.model, one.stock):
        torch.testing.assert_close(loaded(TOKENS).logits, one.model(TOKENS).logits, rtol=0, atol=1e-5)


def test_biases_for_which_an_architecture_has_no_place_are_not_folded() -> None:
    one = nets.policy(nets.qwen3, BitFit(targets=("up_proj",), biases="added"))
    with pytest.raises(HoneError, match="no place") as fault:
        one.tuning.merge(one.model)
    assert fault.value.code == "M040"
