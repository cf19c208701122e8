"""What is trained is what leaves: every family and every method through every kind of artifact, replayed against its certificate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hone.core.errors import HoneError
from hone.export.base import Artifact
from hone.export.proof.diagnose import Verdict
from hone.recipe.exporting import Wanted, export, open_source
from hone.recipe.verifying import checked_copy, verify_copy
from hone.tuning import METHODS
from tests.export.kit import FAMILIES, tune

Tuned = Callable[..., Path]
MODELS = ("seedling", "stories260k", "qwen3", "gemma3", "gpt2")
FIVE = ("lora", "dora", "ia3", "bitfit", "full")
EXACT = ("merged:f32", "gguf:F32")
ROUNDED = ("gguf:F16", "gguf:Q8_0")


def artifact_of(folder: Path) -> Path:
    return folder / "adapter" if (folder / "adapter").is_dir() else folder / "model"


def exported(given: Path, out: Path, *kinds: str) -> list[Artifact]:
    source = open_source(str(given))
    made = []
    for kind in kinds:
        target, _, quant = kind.partition(":")
        check = lambda path: checked_copy(path, source.golden)  # noqa: E731
        made += export(source, Wanted(targets=(target,), out=out, quant=quant or None), check=check)
    return made


def verdict_of(artifact: Artifact) -> Verdict:
    assert isinstance(artifact.checked, Verdict), artifact.checked
    return artifact.checked


@pytest.mark.parametrize("method", FIVE)
@pytest.mark.parametrize("model", MODELS)
def test_the_matrix(model: str, method: str, tuned_of: Tuned, tmp_path: Path) -> None:
    """Exact copies answer within 2e-3, and here ten times closer, with all likeliest tokens the same; rounded ones stay in their bands."""
    settings = {"targets": ("q_proj", "k_proj", "v_proj")} if method == "bitfit" and model in ("seedling", "qwen3", "gemma3") else {}
    given = artifact_of(tuned_of(model, method, **settings))
    kinds = (*(["adapter"] if given.name == "adapter" else []), *EXACT, *ROUNDED)
    for kind, artifact in zip(kinds, exported(given, tmp_path, *kinds), strict=True):
        verdict = verdict_of(artifact)
        assert verdict.passed, (kind, verdict.findings)
        if kind in ROUNDED:
            assert verdict.total.worst > 1e-5, "rounding must show, or something else was measured"
        else:
            assert verdict.total.worst < tight(verdict) and verdict.total.agree == 1, kind


def tight(verdict: Verdict) -> float:
    """llama.cpp's GELU is a table of half precision."""
    return 2e-3 if "llama.cpp" in verdict.subject else 1e-4


def test_a_bias_that_llama_cpp_would_not_add_is_refused(tuned_of: Tuned, tmp_path: Path) -> None:
    given = artifact_of(tuned_of("qwen3", "bitfit", targets=("q_proj", "o_proj")))
    (merged,) = exported(given, tmp_path, "merged:f32")
    assert verdict_of(merged).passed
    with pytest.raises(HoneError) as caught:
        exported(given, tmp_path, "gguf:F32")
    assert caught.value.code == "M081" and "o_proj" in caught.value.what


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(MODELS)))
def test_every_other_family_arrives_whole(family: str, tuned_of: Tuned, tmp_path: Path) -> None:
    for artifact in exported(artifact_of(tuned_of(family)), tmp_path, *EXACT):
        verdict = verdict_of(artifact)
        assert verdict.passed, (artifact.target, verdict.findings)
        assert verdict.total.worst < tight(verdict) and verdict.total.agree == 1, artifact.target


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(FIVE)))
def test_every_other_method_arrives_whole_or_says_why_not(method: str, tuned_of: Tuned, tmp_path: Path) -> None:
    """An adapter always; a plain model where the method, and this architecture, can be folded into one."""
    try:
        given, about = artifact_of(tuned_of("qwen3", method)), METHODS[method].about
    except HoneError as error:
        pytest.skip(f"{method} needs settings of its own: {error.code}")
    if about.artifact == "adapter":
        (adapter,) = exported(given, tmp_path / "adapter", "adapter")
        assert verdict_of(adapter).passed, verdict_of(adapter).findings
    try:
        (file,) = exported(given, tmp_path / "file", "gguf:F32")
    except HoneError as error:
        assert error.code == "M040" and error.fix
        assert about.mergeable or about.unmergeable in error.what
        assert not any((tmp_path / "file").glob("*"))
    else:
        assert about.mergeable
        assert verdict_of(file).passed, verdict_of(file).findings


@pytest.mark.parametrize("quant", ["bf16", "f16"])
def test_sixteen_bits_are_one_rounding(quant: str, tuned_of: Tuned, tmp_path: Path) -> None:
    (artifact,) = exported(artifact_of(tuned_of("qwen3")), tmp_path, f"merged:{quant}")
    verdict = verdict_of(artifact)
    assert verdict.passed and verdict.total.kl < 1e-3


def test_an_artifact_proves_itself_away_from_its_run(tuned_of: Tuned, tmp_path: Path) -> None:
    from hone.recipe.verifying import certificate_of

    (artifact,) = exported(artifact_of(tuned_of("qwen3")), tmp_path / "here", "merged:f32")
    moved = artifact.path.rename(tmp_path / "elsewhere")
    assert verify_copy(moved, certificate_of(moved, None)).passed
    assert "KL divergence" in (moved / "README.md").read_text()


def test_rows_that_moved_arrive_and_are_not_left_out_by_vllm(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    tune(base_of("qwen3"), tmp_path / "run", tokens=(1, 7))
    given = tmp_path / "run" / "adapter"
    for artifact in exported(given, tmp_path / "out", "adapter", "gguf:F32"):
        assert verdict_of(artifact).passed, verdict_of(artifact).findings
        assert not any("vllm" in command for command in artifact.commands)
    with pytest.raises(HoneError, match="M103"):
        exported(given, tmp_path / "out", "vllm:adapter")
