"""Copies that were damaged in the ways in which copies go wrong: each is found, and its cause is called by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hone.export.gguf.header import read_header
from hone.export.proof.diagnose import Cause
from hone.export.proof.golden import Golden
from hone.recipe.exporting import Wanted, export, open_source
from hone.recipe.verifying import verify_copy
from tests.export.kit import make_base, tune

Tuned = Callable[..., Path]
CHATML_WITHOUT_END = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] }}"
    "{% if message['role'] != 'assistant' %}{{ '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def edit(file: Path, **changes: Any) -> None:
    kept = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in kept.items() if value is not ...}))


def weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], name: str = "model.safetensors") -> None:
    tensors = load_file(folder / name)
    change(tensors)
    metadata = {"format": "pt"}
    if name.startswith("adapter"):
        from safetensors import safe_open

        with safe_open(folder / name, framework="pt") as stored:
            metadata = dict(stored.metadata())
    save_file(tensors, folder / name, metadata=metadata)


def template(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text)

    return change


def own_template(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        file = folder / "chat_template.jinja"
        file.write_text(change(file.read_text()))

    return apply


def no_end(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        edit(folder / name, eos_token_id=..., eos_token=...)


def other_end(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=0)


def swapped_tokens(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    first, second = [token for token, id in vocabulary.items() if id in (300, 301)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(document))


def rows(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.embed_tokens.weight"][[7, 40, 41]] += 0.5


def one_module(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.randn_like(tensors["model.layers.1.mlp.up_proj.weight"]) * 0.05


def eight_bits(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor.to(torch.float8_e4m3fn).to(tensor.dtype)


def from_base(base: Path, share: float, *names: str) -> Callable[[Path], None]:
    """Put `share` of the trained change into some modules (all without names): 0 is the base, 2 is a doubled scale."""

    def change(folder: Path) -> None:
        plain = load_file(base / "model.safetensors")

        def mix(tensors: dict[str, torch.Tensor]) -> None:
            for name in tensors:
                if not names or name in names:
                    tensors[name] = plain[name] + share * (tensors[name] - plain[name])

        weights(folder, mix)

    return change


def copied(given: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(given, tmp_path / "copy"))


@pytest.fixture(scope="module")
def merged(tuned_of: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = open_source(str(tuned_of("qwen3") / "adapter"))
    return export(source, Wanted(targets=("merged",), out=tmp_path_factory.mktemp("out"), quant="f32"))[0].path


def causes(path: Path, golden: Path) -> list[str]:
    return [str(finding.cause) for finding in verify_copy(path, Golden.load(golden)).findings]


MERGED = {
    "a mark in front that training never had": (Cause.WRONG_TEMPLATE, own_template(lambda text: "{{ '<|endoftext|>' }}" + text)),
    "no end after answers": (Cause.MISSING_EOS, template(CHATML_WITHOUT_END)),
    "another template": (Cause.WRONG_TEMPLATE, own_template(lambda text: text.replace("<|im_start|>' +", "### ' +"))),
    "a template with one blank too many": (Cause.WRONG_TEMPLATE, own_template(lambda text: text.replace("assistant\n", "assistant \n"))),
    "no template": (Cause.WRONG_TEMPLATE, lambda folder: (folder / "chat_template.jinja").unlink()),
    "nothing ends an answer": (Cause.MISSING_EOS, no_end),
    "stops elsewhere": (Cause.WRONG_STOP, other_end),
    "two tokens swapped": (Cause.TOKENIZER, swapped_tokens),
    "three embeddings": (Cause.EMBEDDING, lambda folder: weights(folder, rows)),
    "one matrix of noise": (Cause.CORRUPTED, lambda folder: weights(folder, one_module)),
    "rounded to 8 bits on the way": (Cause.ROUNDING, lambda folder: weights(folder, eight_bits)),
    "norm epsilon": (Cause.METADATA, lambda folder: edit(folder / "config.json", rms_norm_eps=0.1)),
    "rope": (Cause.METADATA, lambda folder: edit(folder / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 50.0})),
}  # fmt: skip


@pytest.mark.parametrize("damage", MERGED)
def test_a_merged_copy(damage: str, merged: Path, tmp_path: Path) -> None:
    cause, change = MERGED[damage]
    folder = copied(merged, tmp_path)
    change(folder)
    assert causes(folder, merged)[:1] == [cause]


MIXED = {
    "one module not merged": (Cause.LOST, 0.0, ("model.layers.0.self_attn.q_proj.weight",)),
    "nothing merged": (Cause.LOST, 0.0, ()),
    "scale doubled": (Cause.SCALE, 2.0, ()),
    "scale halved": (Cause.SCALE, 0.5, ()),
    "merged backwards": (Cause.SCALE, -1.0, ()),
}


@pytest.mark.parametrize("damage", MIXED)
def test_a_change_that_was_added_wrongly(damage: str, merged: Path, base_of: Callable[[str], Path], tmp_path: Path) -> None:
    cause, share, names = MIXED[damage]
    folder = copied(merged, tmp_path)
    from_base(base_of("qwen3"), share, *names)(folder)
    assert causes(folder, merged) == [cause]


def drop_module(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "layers.1.self_attn.v_proj" in name]:
            tensors[name] = torch.zeros_like(tensors[name])

    weights(folder, change, "adapter_model.safetensors")


ADAPTER = {
    "alpha doubled": (Cause.SCALE, lambda folder: edit(folder / "adapter_config.json", lora_alpha=64)),
    "rank-stabilised scale": (Cause.SCALE, lambda folder: edit(folder / "adapter_config.json", use_rslora=True)),
    "a module zeroed": (Cause.LOST, drop_module),
}


@pytest.mark.parametrize("damage", ADAPTER)
def test_an_adapter(damage: str, tuned_of: Tuned, tmp_path: Path) -> None:
    cause, change = ADAPTER[damage]
    given = tuned_of("qwen3")
    folder = copied(given / "adapter", tmp_path)
    change(folder)
    assert causes(folder, given) == [cause]


def test_an_adapter_on_another_base(tuned_of: Tuned, words: Any, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", "qwen3", words, seed=9)
    folder = copied(tuned_of("qwen3") / "adapter", tmp_path)
    edit(folder / "adapter_config.json", base_model_name_or_path=str(other))

    def forget(tensors: dict[str, torch.Tensor]) -> None:
        """The adapter itself no longer says where it belongs, as one from elsewhere would not."""

    tensors = load_file(folder / "adapter_model.safetensors")
    forget(tensors)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    assert causes(folder, tuned_of("qwen3")) == [Cause.WRONG_BASE]


def test_merged_into_another_base(words: Any, merged: Path, tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", "qwen3", words, seed=9)
    folder = copied(merged, tmp_path)
    shutil.copyfile(other / "model.safetensors", folder / "model.safetensors")
    assert causes(folder, merged) == [Cause.WRONG_BASE]


def test_double_bos(tmp_path: Path, words: Any, base_of: Callable[[str], Path]) -> None:
    """A tokenizer with BOS whose template writes it, and a copy whose template writes it twice."""
    import copy

    with_bos = copy.deepcopy(words)
    with_bos.bos_token = "<|endoftext|>"
    with_bos.chat_template = "{{ bos_token }}" + with_bos.chat_template
    base = make_base(tmp_path / "base", "qwen3", with_bos)
    tune(base, tmp_path / "run")
    for text, cause in (("{{ bos_token }}" + with_bos.chat_template, Cause.DOUBLE_BOS), (words.chat_template, Cause.MISSING_BOS)):
        folder = copied(tmp_path / "run" / "adapter", tmp_path)
        (folder / "chat_template.jinja").write_text(text)
        assert causes(folder, tmp_path / "run") == [cause]
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def file(tuned_of: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = open_source(str(tuned_of("llama") / "adapter"))
    folder = export(source, Wanted(targets=("gguf",), out=tmp_path_factory.mktemp("out"), quant="F32"))[0].path
    return next(folder.glob("*.gguf"))


def rewrite(file: Path, target: Path, keys: dict[str, Any], tensors: Callable[[str, Any], Any] = lambda name, array: array) -> Path:
    """The same file with other keys (None removes one) or tensors."""
    import gguf

    from hone.export.gguf.read import read_tensor
    from hone.export.gguf.write import _add

    header = read_header(file)
    writer = gguf.GGUFWriter(target, header.arch)
    for key, value in (header.metadata | keys).items():
        if value is not None and key != "general.architecture":
            _add(writer, gguf, key, value)
    for name in header.tensors:
        writer.add_tensor(name, tensors(name, read_tensor(header, name).numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def unswap(name: str, array: Any) -> Any:
    """Queries in transformers' order: the mistake of a converter that forgets to change it."""
    from hone.export.gguf.families import _unswap

    heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[2] if name.startswith("blk") else "", 0)
    return _unswap(torch.from_numpy(array), heads).contiguous().numpy() if heads else array


KEYS = {
    "another EOS": (Cause.WRONG_STOP, {"tokenizer.ggml.eos_token_id": 0}),
    "BOS that training never had": (Cause.ADDED_BOS, {"tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.add_bos_token": True}),
    "no template": (Cause.WRONG_TEMPLATE, {"tokenizer.chat_template": None}),
    "no merges": (Cause.TOKENIZER, {"tokenizer.ggml.merges": ["a b"]}),
    "another rope base": (Cause.METADATA, {"llama.rope.freq_base": 77.0}),
    "another epsilon": (Cause.METADATA, {"llama.attention.layer_norm_rms_epsilon": 0.1}),
}


@pytest.mark.parametrize("damage", KEYS)
def test_a_file_with_a_wrong_key(damage: str, file: Path, tmp_path: Path) -> None:
    cause, keys = KEYS[damage]
    assert causes(rewrite(file, tmp_path / "x.gguf", keys), file.parent)[:1] == [cause]


def test_a_file_rewritten_without_changes_passes(file: Path, tmp_path: Path) -> None:
    assert causes(rewrite(file, tmp_path / "x.gguf", {}), file.parent) == []


def test_a_file_whose_queries_lie_in_the_wrong_order(file: Path, tmp_path: Path) -> None:
    found = verify_copy(rewrite(file, tmp_path / "x.gguf", {}, unswap), Golden.load(file.parent)).findings
    assert [finding.cause for finding in found] == [Cause.CORRUPTED]
    assert "q_proj" in found[0].evidence or "k_proj" in found[0].evidence


def test_a_quantisation_beyond_its_band(tuned_of: Tuned, tmp_path: Path) -> None:
    """Q8_0 numbers that went through 4 bits first: the file says Q8_0 and is no better than Q4_0."""
    import gguf

    source = open_source(str(tuned_of("llama") / "adapter"))
    folder = export(source, Wanted(targets=("gguf",), out=tmp_path, quant="Q8_0"))[0].path
    given = next(folder.glob("*.gguf"))

    def coarse(name: str, array: Any) -> Any:
        four = gguf.GGMLQuantizationType.Q4_0
        return gguf.quants.dequantize(gguf.quants.quantize(array, four), four) if array.ndim > 1 and array.shape[-1] % 32 == 0 else array

    exact = rewrite(given, tmp_path / "coarse.gguf", {}, coarse)
    found = [finding.cause for finding in verify_copy(exact, Golden.load(folder)).findings]
    assert found and found[0] in (Cause.ROUNDING, Cause.QUANTISATION)
