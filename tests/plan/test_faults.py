"""Known faults of published models, planted in a small folder: each is named, and the mended copy has none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hone.demo
from hone.cli.main import main
from hone.core.errors import HoneError
from hone.plan.faults import check_model, mend, row_norm
from hone.plan.headers import stored_tensors
from hone.plan.kinds import base_or_instruct, identity, quantisation_of

SEEDLING = Path(hone.demo.__path__[0]) / "seedling"


def planted(folder: Path, name: str, **keys: Any) -> Path:
    """A copy of the seedling's small files, with some keys of one file changed; weights are linked."""
    target = folder / "model"
    target.mkdir()
    for file in SEEDLING.iterdir():
        if file.suffix == ".safetensors":
            (target / file.name).symlink_to(file)
        elif file.is_file():
            shutil.copy(file, target)
    path = target / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(before | keys))
    return target


def codes(folder: Path) -> list[str]:
    return [fault.code for fault in check_model(folder)]


def test_the_seedling_is_sound() -> None:
    assert codes(SEEDLING) == []


@pytest.mark.parametrize(
    ("code", "name", "keys"),
    [
        ("M092", "tokenizer_config.json", {"pad_token": "<|im_end|>"}),
        ("M093", "tokenizer_config.json", {"add_bos_token": True, "bos_token": "<|im_start|>"}),
        ("M094", "generation_config.json", {"eos_token_id": [7]}),
        ("M095", "tokenizer_config.json", {"eos_token": "<|endoftext|>", "pad_token": None}),
    ],
)
def test_a_fault_is_named_and_mended(code: str, name: str, keys: dict[str, Any], tmp_path: Path) -> None:
    """Phi-4 (pad = eos), Gemma (two beginnings), copies with another model's generation config, ChatML on a base's end."""
    folder = planted(tmp_path, name, **keys)
    if code == "M095":
        (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    assert code in codes(folder)
    assert mend(folder, check_model(folder), tmp_path / "mended") and codes(tmp_path / "mended") == []


def test_faults_that_only_another_model_mends(tmp_path: Path) -> None:
    folder = planted(tmp_path, "config.json", vocab_size=3)
    assert "M096" in codes(folder)
    with pytest.raises(HoneError) as caught:
        mend(folder, check_model(folder), folder)
    assert caught.value.code == "M098"


def test_untrained_control_tokens(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = planted(tmp_path, "config.json")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("embed_tokens.weight"))
    ids = {one["content"]: one["id"] for one in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]}
    changed = tensors[name].clone()
    changed[ids["<|im_start|>"]] = 0
    file.unlink()
    save_file(tensors | {name: changed}, file)
    assert codes(folder) == ["M097"]
    stored = stored_tensors(folder)[name]
    assert row_norm(stored, 5) == pytest.approx(float(torch.linalg.vector_norm(changed[5].float())), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "template", "kind"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", True, "instruct"),
        ("google/gemma-2-2b-it", True, "instruct"),
        ("Qwen/Qwen3-0.6B-Base", True, "base"),
        ("Qwen/Qwen3-0.6B", True, "instruct"),
        ("meta-llama/Llama-3.1-8B", False, "base"),
        ("google/gemma-3-4b-pt", False, "base"),
    ],
)
def test_base_or_instruct(name: str, template: bool, kind: str) -> None:
    assert base_or_instruct(name, template)[0] == kind


def test_quantisation_by_name_and_config() -> None:
    plain = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    assert str(quantisation_of("unsloth/x-bnb-4bit", {"quantization_config": plain})).startswith("standard 4-bit, nf4")
    dynamic = plain | {"llm_int8_skip_modules": ["lm_head", "model.layers.0.mlp", "model.layers.5.self_attn"]}
    assert str(quantisation_of("unsloth/x-unsloth-bnb-4bit", {"quantization_config": dynamic})).startswith("dynamic 4-bit (2 modules")
    assert "by its name" in str(quantisation_of("unsloth/x-unsloth-bnb-4bit", {}))
    assert quantisation_of("a/b", {"quantization_config": {"quant_method": "gptq", "bits": 4}}) == "gptq, 4-bit"
    assert quantisation_of("a/b", {}) is None


def test_the_card_of_the_seedling(capsys: pytest.CaptureFixture[str]) -> None:
    found = identity(str(SEEDLING), SEEDLING)
    assert found.facts.exact and found.files > 9_000_000 and found.licence == "apache-2.0"
    assert main(["model", "info", str(SEEDLING)]) == 0
    assert "qwen3" in capsys.readouterr().out
    assert main(["model", "check", str(SEEDLING)]) == 0
