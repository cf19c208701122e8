"""Quantised copies: other tools load them unchanged, and a run on a quantised base comes out as what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from hone.export.packed import RoundedWeights, base_weights, paths_of
from hone.export.proof.diagnose import Cause, causes
from hone.export.quantised import write_quantised
from hone.export.tensors import StoredWeights
from hone.models.load import load
from hone.models.policy import using_attention
from hone.models.quantise import pack
from hone.plan.packed import Scheme
from hone.recipe.exporting import EXACT, Wanted, export, find_parts, open_source, weights_of
from hone.recipe.opening import open_model
from hone.recipe.verifying import checked_copy, verify_copy
from tests.export.kit import tune
from tests.models.tiny_models import make_model

pytest.importorskip("bitsandbytes", reason="4- and 8-bit weights are packed by bitsandbytes (the extra 'quant')")

SCHEMES = [Scheme("nf4", double=True), Scheme("fp4"), Scheme("int8")]
TOKENS = torch.arange(3, 20)[None]


def made(tmp_path: Path, scheme: Scheme, family: str = "llama") -> tuple[Path, Path]:
    plain = make_model(tmp_path / "plain", family)
    write_quantised(plain, tmp_path / "copy", scheme, papers={"README.md": "x"}, tell=print)
    return plain, tmp_path / "copy"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_a_copy_is_the_base_that_a_run_would_quantise_itself(scheme: Scheme, family: str, tmp_path: Path) -> None:
    plain, copy = made(tmp_path, scheme, family)
    ours = load(plain, dtype="float32", device="cpu", scheme=scheme).model(TOKENS).logits
    theirs = load(copy, dtype="float32", device="cpu")
    assert theirs.files and theirs.scheme == scheme
    torch.testing.assert_close(theirs.model(TOKENS).logits, ours, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_transformers_and_peft_load_it_as_it_is(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain, copy = made(tmp_path, Scheme("nf4", double=True, skip=("model.layers.1.mlp.up_proj",)))
    theirs = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    kinds = {path: type(module).__name__ for path, module in theirs.named_modules()}
    assert kinds["model.layers.0.mlp.up_proj"] == "Linear4bit" and kinds["model.layers.1.mlp.up_proj"] == "Linear"
    assert kinds["lm_head"] == "Linear"
    scheme = Scheme("nf4", double=True, skip=("model.layers.1.mlp.up_proj",))
    ours = load(plain, dtype="float32", device="cpu", scheme=scheme)
    torch.testing.assert_close(theirs(TOKENS).logits.float(), ours.model(TOKENS).logits, rtol=0, atol=0.05)
    tuned = get_peft_model(theirs, LoraConfig(r=2, target_modules=["q_proj"]))
    tuned(TOKENS).logits.sum().backward()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_weights_are_rounded_one_at_a_time_as_the_run_has_them(family: str, tmp_path: Path) -> None:
    scheme = SCHEMES[0]
    plain, copy = made(tmp_path, scheme, family)
    rounded, unpacked, stored = base_weights(plain, scheme), base_weights(copy, None), StoredWeights(plain)
    assert isinstance(rounded, RoundedWeights) and set(unpacked.names()) == set(rounded.names())
    for path in sorted(paths_of(plain, scheme))[:3]:
        name = f"{path}.weight"
        weight = stored.get(name).t() if name in stored.flipped else stored.get(name)
        dense = pack(weight, scheme).dense(torch.float32)
        assert torch.equal(unpacked.get(name), dense)
        assert torch.equal(rounded.get(name), dense.t() if name in stored.flipped else dense)


@pytest.fixture(scope="module")
def qlora(tmp_path_factory: pytest.TempPathFactory, base_of: Callable[[str], Path]) -> Path:
    """An adapter that was trained on a base in NF4, with its certificate."""
    folder = tmp_path_factory.mktemp("qlora")
    tune(base_of("qwen3"), folder, "lora", scheme=SCHEMES[0])
    return folder / "adapter"


def test_an_adapter_is_opened_on_the_base_that_it_learned_on(qlora: Path) -> None:
    assert open_model(qlora).resolved["model"]["quantise"] == "nf4"
    assert find_parts(str(qlora)).scheme == SCHEMES[0]
    assert verify_copy(qlora, open_source(str(qlora)).golden).passed


@pytest.mark.parametrize("quant", ["f32", "nf4", "int8"])
def test_a_merged_run_is_what_was_trained(quant: str, qlora: Path, tmp_path: Path) -> None:
    source = open_source(str(qlora))
    (artifact,) = export(source, Wanted(targets=("merged",), out=tmp_path, quant=quant), check=partial(checked_copy, golden=source.golden))
    checked = artifact.checked
    assert not isinstance(checked, str) and checked.band is not None and checked.total.kl < checked.band.kl, checked
    # 4 bits may turn over the near ties of a random model, but nothing else may be wrong with it
    assert checked.passed or (quant == "nf4" and causes(checked.findings) == [Cause.QUANTISATION]), checked
    assert "quantised" in artifact.notes[0]
    config = json.loads((artifact.path / "config.json").read_text())
    assert ("quantization_config" in config) == (quant != "f32")
    if quant == "f32":
        opened, merged = open_model(qlora, hardware=EXACT), load(artifact.path, dtype="float32", device="cpu")
        with using_attention(opened.policy.model, opened.policy.stock):
            wanted = opened.policy.model(TOKENS).logits
        torch.testing.assert_close(merged.model(TOKENS).logits, wanted, rtol=0, atol=1e-3)


def test_folding_into_the_16_bit_base_would_be_another_model(qlora: Path) -> None:
    parts = find_parts(str(qlora))
    name = next(name for name in weights_of(parts).names() if name.endswith("up_proj.weight"))
    plain = StoredWeights(parts.model)
    of_plain = weights_of(replace(parts, scheme=None))
    assert (weights_of(parts).get(name) - of_plain.get(name)).norm() > 0.05 * plain.get(name).norm()
