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


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_arrives_whole(family: str, tuned_of: Tuned, tmp_path: Path) -> None:
    """Log-probabilities within 2e-3 and all likeliest tokens the same; here the differences are a hundred times smaller."""
    given = artifact_of(tuned_of(family))
    for artifact in exported(given, tmp_path, "adapter", *EXACT):
        verdict = verdict_of(artifact)
        assert verdict.passed, (artifact.target, verdict.findings)
        tight = 2e-3 if "llama.cpp" in verdict.subject else 1e-4  # whose GELU is a table of half precision
        assert verdict.total.worst < tight and verdict.total.agree == 1, artifact.target


@pytest.mark.parametrize("family", ["qwen3", "gemma3", "gpt2"])
def test_rounded_files_stay_in_their_bands(family: str, tuned_of: Tuned, tmp_path: Path) -> None:
    for artifact in exported(artifact_of(tuned_of(family)), tmp_path, *ROUNDED):
        verdict = verdict_of(artifact)
        assert verdict.passed, verdict.findings
        assert verdict.total.worst > 1e-5, "rounding must show, or something else was measured"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_arrives_whole_or_says_why_not(method: str, tuned_of: Tuned, tmp_path: Path) -> None:
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


def test_the_small_base_that_comes_along(tmp_path: Path) -> None:
    from hone.demo import SEEDLING

    tune(SEEDLING, tmp_path / "run", rank=4)
    for artifact in exported(tmp_path / "run" / "adapter", tmp_path, "merged", "gguf:Q8_0"):
        assert verdict_of(artifact).passed, verdict_of(artifact).findings


def test_a_sentencepiece_model(shared: Path, tmp_path: Path) -> None:
    tune(shared / "weights" / "stories260k", tmp_path / "run", rank=4)
    for artifact in exported(tmp_path / "run" / "adapter", tmp_path, "adapter", "merged", "gguf:F32", "gguf:F16", "gguf:Q8_0"):
        assert verdict_of(artifact).passed, verdict_of(artifact).findings


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
    with pytest.raises(HoneError, match="M103"):
        exported(given, tmp_path / "out", "vllm:adapter")
