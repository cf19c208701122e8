"""Quantised bases: what they say, what they take, what they cannot do, and that files of other tools are understood."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from hone.core.errors import HoneError
from hone.models.kernels.fuse import fuse
from hone.models.load import load
from hone.models.quantise import FourBit, footprint, pack, quantisable, quantise
from hone.models.skeleton import skeleton
from hone.plan.headers import stored_tensors
from hone.plan.layers import linears
from hone.plan.memory import Work, weight_bytes
from hone.plan.packed import Scheme, contradiction, packed_weights, scheme_of, share_of, skips
from hone.plan.shapes import model_facts
from hone.rollout.sample import Sampler
from hone.tuning import trainable
from hone.tuning.lora import Lora
from hone.tuning.packed import Packed, packed_layers
from tests import nets
from tests.models.tiny_models import make_model

bitsandbytes = pytest.importorskip("bitsandbytes", reason="4- and 8-bit weights are packed by bitsandbytes (the extra 'quant')")

SCHEMES = [Scheme("nf4", double=True), Scheme("nf4"), Scheme("fp4", double=True), Scheme("fp4"), Scheme("int8")]
ERROR = {"nf4": 0.1, "fp4": 0.14, "int8": 0.01}
"""Largest relative error of a normal weight."""
named = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def quantised(family: str, scheme: Scheme, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = nets.MODELS[family]()
    quantise(model, scheme, place=torch.device("cpu"), dtype=dtype)
    return model.eval()


@named
def test_a_layer_says_what_its_unpacked_weight_says_forward_and_backward(scheme: Scheme) -> None:
    weight = torch.randn(48, 96)
    layer = pack(weight, scheme, nn.Parameter(torch.randn(48)))
    assert 0 < (layer.dense() - weight).norm() / weight.norm() < ERROR[scheme.kind]
    x = torch.randn(5, 96, requires_grad=True)
    y = layer(x)
    torch.testing.assert_close(y, nn.functional.linear(x, layer.dense(), layer.bias))
    (given,) = torch.autograd.grad(y.square().sum(), x)
    (wanted,) = torch.autograd.grad(layer.plain()(x).square().sum(), x)
    torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_four_bits_are_bitsandbytes_own(kind: str, double: bool) -> None:
    weight = torch.randn(32, 64)
    layer = pack(weight, Scheme(kind, double=double))
    theirs = bitsandbytes.nn.Linear4bit(64, 32, bias=False, compute_dtype=torch.float32, compress_statistics=double, quant_type=kind)
    theirs.load_state_dict({"weight": weight})
    theirs.to("cpu")
    x = torch.randn(3, 64)
    torch.testing.assert_close(layer(x), theirs(x), rtol=0, atol=1e-6)
    assert torch.equal(layer.get_buffer("codes"), theirs.weight.data)


@named
@pytest.mark.parametrize("family", nets.MODELS)
def test_head_and_embeddings_stay_and_the_rest_is_packed(family: str, scheme: Scheme) -> None:
    model, plain = quantised(family, scheme), nets.MODELS[family]()
    assert set(packed_layers(model)) == set(quantisable(plain, scheme))
    assert not isinstance(model.get_output_embeddings(), Packed)
    assert {type(model.get_input_embeddings())} == {nn.Embedding}


@named
def test_reported_bytes_are_those_in_memory_and_in_the_plan(scheme: Scheme, tmp_path: Path) -> None:
    make_model(tmp_path)
    loaded = load(tmp_path, dtype="float32", device="cpu", scheme=scheme)
    found = footprint(loaded.model)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in (*loaded.model.parameters(), *loaded.model.buffers())}
    assert found.nbytes == sum(storages.values())
    facts, stored = model_facts(tmp_path), stored_tensors(tmp_path)
    share = share_of(scheme, linears(facts, stored), stored)
    assert (share.numbers, share.nbytes) == (found.packed, found.packed_bytes)
    work = Work(facts=facts, adapters=None, linear=share.numbers, largest=0, quantised=share.kind, packed=share.nbytes)  # type: ignore[arg-type]
    buffers = sum(
        b.numel() * b.element_size() for m in loaded.model.modules() if not isinstance(m, Packed) for b in m.buffers(recurse=False)
    )
    assert weight_bytes(work) == found.nbytes - buffers
    assert f"{found.bits:.3f} bits" in loaded.notes[1]


def test_the_bits_of_a_weight_are_those_of_the_paper() -> None:
    weight = torch.randn(1024, 1024)
    for scheme, bits in ((Scheme("nf4", double=True), 4.127), (Scheme("nf4"), 4.5), (Scheme("int8"), 8.03)):
        layer = pack(weight, scheme)
        taken = sum(b.numel() * b.element_size() for name, b in layer.named_buffers() if name != "table")
        assert 8 * taken / weight.numel() == pytest.approx(bits, abs=2e-3)


def test_layers_share_the_table_of_quantised_scales() -> None:
    layers = list(packed_layers(quantised("llama", SCHEMES[0])).values())
    assert len({layer.get_buffer("table").data_ptr() for layer in layers}) == 1


@pytest.mark.parametrize("scheme", [SCHEMES[0], SCHEMES[-1]], ids=str)
def test_answers_are_written_by_the_models_own_modules(scheme: Scheme) -> None:
    """The C function that writes for plain Llamas knows no packed weights; what is written is what the model says."""
    model = quantised("llama", scheme)
    fuse(model)
    tuning = Lora(rank=2)
    tuning.attach(model, seed=1)
    for parameter in trainable(model).values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    sampler = Sampler(model, SimpleNamespace(decode=lambda tokens, **_: ""))
    assert sampler.fit.works and not sampler.fit.quick
    prompt = [5, 9, 40, 33, 21]
    (answer,) = sampler.generate([prompt], max_new_tokens=4)
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer.tokens]])).logits[0]
    assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == answer.tokens


def saved_by_transformers(tmp_path: Path, **options: Any) -> Path:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    make_model(tmp_path / "plain")
    config = BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.float32, **options)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=config, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    for file in (tmp_path / "plain").glob("tokenizer*"):
        (tmp_path / "theirs" / file.name).write_bytes(file.read_bytes())
    return tmp_path / "theirs"


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, Scheme("nf4", double=True)),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, Scheme("fp4")),
        ({"load_in_8bit": True}, Scheme("int8")),
    ],
)
def test_files_that_transformers_quantised_are_taken_over(options: dict[str, Any], scheme: Scheme, tmp_path: Path) -> None:
    folder = saved_by_transformers(tmp_path, **options)
    config = json.loads((folder / "config.json").read_text())
    assert scheme_of(config) == scheme
    theirs = load(folder, dtype="float32", device="cpu")
    ours = load(tmp_path / "plain", dtype="float32", device="cpu", scheme=scheme)
    tokens = torch.arange(3, 20)[None]
    torch.testing.assert_close(theirs.model(tokens).logits, ours.model(tokens).logits, rtol=0, atol=1e-5)
    assert footprint(theirs.model)[:2] == footprint(ours.model)[:2]
    facts, stored = model_facts(folder), stored_tensors(folder)
    assert (facts.parameters, facts.exact) == (model_facts(tmp_path / "plain").parameters, True)
    share = share_of(None, linears(facts, stored), stored)
    assert (share.kind, share.numbers, share.nbytes) == (scheme.kind, *footprint(theirs.model)[:2])
    with pytest.raises(HoneError, match="contradicts") as fault:
        load(folder, device="cpu", scheme=Scheme("int8" if scheme.kind != "int8" else "nf4"))
    assert fault.value.code == "M089"
    assert load(folder, dtype="float32", device="cpu", scheme=scheme).files


def test_a_skip_list_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    skip = ["lm_head", "model.layers.1.mlp"]
    folder = saved_by_transformers(tmp_path, load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=skip)
    scheme = scheme_of(json.loads((folder / "config.json").read_text()))
    assert scheme is not None and scheme.skip == ("model.layers.1.mlp",)
    assert set(packed_weights(stored_tensors(folder))) == set(quantisable(skeleton(tmp_path / "plain"), scheme))
    assert skips(scheme, "model.layers.1.mlp.up_proj") and not skips(scheme, "model.layers.11.mlp.up_proj")


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        ("unsloth/x-bnb-4bit", {}, "plain"),
        ("a/x-bnb-4bit", {"load_in_8bit": True}, "int8"),
        ("unsloth/x-unsloth-bnb-4bit", {"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head"]}, "dynamic"),
        ("unsloth/x-unsloth-bnb-4bit", {"load_in_4bit": True, "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"]}, ""),
        ("unsloth/x-bnb-4bit", {"load_in_4bit": True}, ""),
        ("a/x", {"load_in_4bit": True}, ""),
        ("a/x-GPTQ-4bit", {"quant_method": "gptq"}, ""),
    ],
)
def test_a_name_and_a_config_that_contradict_each_other_are_told(name: str, config: dict[str, Any], says: str) -> None:
    found = contradiction(name, {"quantization_config": {"quant_method": "bitsandbytes", **config}} if config else {})
    assert says in found and bool(says) == bool(found)


def test_a_config_without_quantised_files_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(HoneError, match="no quantised weight") as fault:
        load(tmp_path, device="cpu")
    assert fault.value.code == "M089"


def test_the_rest_is_in_the_asked_type_and_scales_are_not() -> None:
    model = quantised("llama", SCHEMES[1], torch.bfloat16)
    layer = model.model.layers[0].self_attn.q_proj
    assert isinstance(layer, FourBit) and layer.get_buffer("scales").dtype == torch.float32
    assert model.model.norm.weight.dtype == torch.bfloat16 and layer.dense().dtype == torch.bfloat16
