"""GGUF files: headers that lie, tokenizers of every kind, and independent readers that find the same numbers."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hone.core.errors import HoneError
from hone.demo import SEEDLING
from hone.export.gguf import llama_cpp
from hone.export.gguf.families import FAMILIES, _swap, _unswap, family_of
from hone.export.gguf.header import BLOCKS, read_header
from hone.export.gguf.read import read_tensor
from hone.export.gguf.session import Session
from hone.export.gguf.subject import gguf_subject
from hone.export.gguf.vocabulary import TRIALS, vocabulary_metadata
from hone.export.gguf.words import KINDS, encoder
from hone.export.proof.diagnose import verify
from hone.export.proof.golden import Golden
from hone.export.tensors import Weights
from hone.models.tokens import load_tokenizer
from hone.recipe.exporting import Wanted, export, open_source
from hone.recipe.verifying import longest, verify_copy
from tests.export.kit import tune

Tuned = Callable[..., Path]
with_llama_cpp = pytest.mark.skipif(not llama_cpp.installed(), reason="llama-cpp-python is not installed (docs/export.md says how)")


@pytest.fixture(scope="module")
def file_of(tuned_of: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def make(family: str) -> Path:
        source = open_source(str(tuned_of(family) / "adapter"))
        return next(export(source, Wanted(targets=("gguf",), out=tmp_path_factory.mktemp("gguf"), quant="F32"))[0].path.glob("*.gguf"))

    return make


def test_a_file_that_announces_more_than_there_is(tmp_path: Path) -> None:
    """49 bytes on which the reader of gguf 0.19 hangs."""
    bomb = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 0, 2**63)
    (tmp_path / "x.gguf").write_bytes(bomb)
    with pytest.raises(HoneError) as caught:
        read_header(tmp_path / "x.gguf")
    assert caught.value.code == "M083"


def test_every_damaged_header_is_refused_or_read(file_of: Callable[[str], Path], tmp_path: Path) -> None:
    whole = file_of("qwen3").read_bytes()
    rng, target = random.Random(0), tmp_path / "x.gguf"
    for _ in range(150):
        damaged = bytearray(whole[: rng.choice([len(whole), rng.randrange(0, 9000)])])
        for _ in range(rng.randint(0, 4)):
            if damaged:
                damaged[rng.randrange(min(len(damaged), 9000))] = rng.choice([0, 255, rng.randrange(256)])
        target.write_bytes(damaged)
        try:
            header = read_header(target)
            assert all(place.stop <= len(damaged) for place in header.tensors.values())
        except HoneError as error:
            assert error.code == "M083"


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2", "phi3"])
def test_the_packages_own_reader_finds_the_same(family: str, file_of: Callable[[str], Path]) -> None:
    import gguf

    file = file_of(family)
    ours, theirs = read_header(file), gguf.GGUFReader(file)
    assert set(ours.tensors) == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        place = ours.tensors[tensor.name]
        assert (place.start, place.kind, place.shape[::-1]) == (tensor.data_offset, tensor.tensor_type.name, tuple(map(int, tensor.shape)))
        assert torch.equal(read_tensor(ours, tensor.name), torch.from_numpy(tensor.data.copy()).reshape(place.shape))
    for key, value in ours.metadata.items():
        assert theirs.get_field(key).contents() == value, key
    sizes = {kind.value: gguf.GGML_QUANT_SIZES[kind] for kind in gguf.GGMLQuantizationType}
    assert all(sizes[number] == (block, size) for number, (_, block, size) in BLOCKS.items())


@pytest.mark.parametrize("family", ["mistral", "qwen2", "phi3"])
def test_transformers_reads_the_same_weights(family: str, file_of: Callable[[str], Path], tuned_of: Tuned, tmp_path: Path) -> None:
    """Its GGUF loader was written by others. (It does not know odd head sizes, biases of Llama, or GPT-2 with another context.)"""
    from transformers import AutoModelForCausalLM

    source = open_source(str(tuned_of(family) / "adapter"))
    merged = export(source, Wanted(targets=("merged",), out=tmp_path, quant="f32"))[0].path
    file = file_of(family)
    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).state_dict()
    for name, tensor in load_file(merged / "model.safetensors").items():
        assert torch.allclose(theirs[name], tensor, atol=1e-6), name


def test_swapping_rows_is_undone() -> None:
    x = torch.arange(24.0).reshape(12, 2)
    assert torch.equal(_unswap(_swap(x, 2), 2), x)
    assert _swap(x, 1)[:, 0].tolist() == [0, 12, 2, 14, 4, 16, 6, 18, 8, 20, 10, 22]


def test_what_cannot_be_written_is_refused_by_name() -> None:
    with pytest.raises(HoneError) as caught:
        family_of({"model_type": "mamba"})
    assert caught.value.code == "M080" and "mamba" in caught.value.what
    rope = {"rope_type": "dynamic", "rope_theta": 1.0}
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 8,
        "num_attention_heads": 2,
        "rope_parameters": rope,
    }
    config |= {
        "vocab_size": 8,
        "max_position_embeddings": 8,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
    }
    for change, word in (({}, "dynamic"), ({"hidden_act": "relu"}, "relu")):
        with pytest.raises(HoneError) as caught:
            FAMILIES["llama"].metadata(config | change)
        assert caught.value.code == "M081" and word in caught.value.what


@pytest.mark.parametrize(("name", "kind"), [("gpt2", "gpt-2"), ("qwen2_tokenizer", "qwen2"), ("minimind", "gpt-2")])
def test_real_tokenizers_get_their_kind(name: str, kind: str, shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "data" / "tokenizers" / name)
    metadata = vocabulary_metadata(tokenizer, len(tokenizer), [], ["<|im_start|>user\nhi<|im_end|>\n"])
    assert metadata["tokenizer.ggml.pre"] == kind
    encode, book = encoder(metadata), next((shared / "data" / "public_domain_books").glob("*.txt")).read_text()[5000:15000]
    assert encode(book) == tokenizer(book, add_special_tokens=False)["input_ids"]


def test_a_sentencepiece_tokenizer(shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "weights" / "stories260k")
    metadata = vocabulary_metadata(tokenizer, len(tokenizer), [2], [])
    assert metadata["tokenizer.ggml.model"] == "llama" and metadata["tokenizer.ggml.add_bos_token"]
    text = "Once upon a time </s><s>[INST] naïve 你好 🙂\n\n  two"
    assert encoder(metadata)(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_that_llama_cpp_does_not_have(shared: Path) -> None:
    tokenizer = load_tokenizer(shared / "weights" / "babyllama-105")
    with pytest.raises(HoneError) as caught:
        vocabulary_metadata(tokenizer, len(tokenizer), [], [])
    assert caught.value.code == "M082"


@pytest.fixture(scope="module")
def merges(shared: Path) -> Callable[[str], Any]:
    """GPT-2's bytes and its first 4,000 merges, cut the way of a kind."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    listed = (shared / "data" / "tokenizers" / "gpt2" / "merges.txt").read_text("utf-8").splitlines()[1:4001]
    pairs = [tuple(merge.split(" ")) for merge in listed]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys("".join(pair) for pair in pairs)]

    def cut(kind: str) -> Any:
        vocabulary = {token: i for i, token in enumerate(tokens)}
        raw = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, ignore_merges=KINDS[kind].whole_words))
        cuts = [pre_tokenizers.Split(Regex(each), "isolated") for each in KINDS[kind].cuts]
        raw.pre_tokenizer = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        return PreTrainedTokenizerFast(tokenizer_object=raw)

    return cut


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_from_the_others(kind: str, merges: Callable[[str], Any]) -> None:
    """That kind, or one that cuts these tokens alike, is found again."""
    tokenizer = merges(kind)
    metadata = vocabulary_metadata(tokenizer, len(tokenizer), [], [])
    for text in TRIALS:
        assert encoder(metadata)(text) == tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def test_k_types_need_llama_cpp_and_rows_of_256(tuned_of: Tuned, tmp_path: Path) -> None:
    source = open_source(str(tuned_of("qwen3") / "adapter"))
    with pytest.raises(HoneError) as caught:
        export(source, Wanted(targets=("gguf",), out=tmp_path, quant="q4_k_m"))
    assert caught.value.code == ("M085" if llama_cpp.installed() else "F044")
    assert not list(tmp_path.iterdir())


@with_llama_cpp
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2"])
def test_llama_cpp_says_the_same(family: str, file_of: Callable[[str], Path]) -> None:
    """It encodes every probe as training did, and gives the same greedy answers."""
    file = file_of(family)
    golden = Golden.load(file.parent)
    with Session(file, context=longest(golden), exact=True) as session:
        for vector in golden.vectors:
            assert session.tokens(vector.text) == vector.written, vector.name
            steps = [step for _, step in zip(vector.answer, session.write(vector.prompt), strict=False)]
            assert [step.token for step in steps] == vector.answer, vector.name
            assert steps[-1].ends == vector.stopped, vector.name


@with_llama_cpp
def test_k_types_of_the_small_base_with_what_matters_in_a_text(tmp_path: Path) -> None:
    """llama.cpp writes them, hone and llama.cpp read them alike, and a matrix of what matters changes the file."""
    tune(SEEDLING, tmp_path / "run", rank=4)
    source = open_source(str(tmp_path / "run" / "adapter"))
    found = dict[str, Path]()
    for name, weights in (("plain", {}), ("weighed", _first_columns(source.weights()))):
        wanted = Wanted(targets=("gguf",), out=tmp_path / name, quant="q4_k_m")
        (made,) = export(replace(source, importance=lambda tell, w=weights: w), wanted)
        found[name] = next(made.path.glob("*.gguf"))
        verdict = verify_copy(made.path, source.golden)
        assert verdict.passed and "run by llama.cpp" in verdict.subject, verdict.findings
        ours = verify(source.golden, gguf_subject(found[name], source.golden)).total
        assert abs(ours.kl - verdict.total.kl) < 0.3 * verdict.total.kl
    assert found["plain"].read_bytes() != found["weighed"].read_bytes()


@with_llama_cpp
@pytest.mark.parametrize("quant", ["IQ3_XXS", "IQ2_XXS"])
def test_narrow_types_need_to_know_what_matters(quant: str, tmp_path: Path) -> None:
    tune(SEEDLING, tmp_path / "run", rank=4)
    source = open_source(str(tmp_path / "run" / "adapter"))
    wanted = Wanted(targets=("gguf",), out=tmp_path / "out", quant=quant)
    with pytest.raises(HoneError) as caught:
        export(source, wanted)
    assert caught.value.code == "M125" and not (tmp_path / "out").exists()
    ones = {name: torch.ones(shape[1]) for name in source.weights().names() if len(shape := source.weights().shape(name)) > 1}
    (made,) = export(replace(source, importance=lambda tell: ones), wanted)
    assert next(made.path.glob("*.gguf")).stat().st_size < 3e6
    assert verify_copy(made.path, source.golden).passed


def _first_columns(weights: Weights) -> dict[str, torch.Tensor]:
    """As if only the first eight columns of every matrix met anything."""
    shapes = {name: weights.shape(name) for name in weights.names() if name.endswith("_proj.weight")}
    return {name: torch.tensor([100.0] * 8 + [1e-3] * (shape[1] - 8)) for name, shape in shapes.items()}
