"""`hone quantise`: a copy, its papers, and what cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.cli.main import main
from tests.models.tiny_models import make_model

pytest.importorskip("bitsandbytes", reason="4- and 8-bit weights are packed by bitsandbytes (the extra 'quant')")


def test_a_uniform_copy_and_its_papers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, copy = make_model(tmp_path / "plain"), tmp_path / "copy"
    assert main(["quantise", str(plain), "-o", str(copy), "--kind", "int8"]) == 0
    settings = json.loads((copy / "config.json").read_text())["quantization_config"]
    assert settings["load_in_8bit"] and settings["llm_int8_skip_modules"] == ["lm_head"]
    assert "base_model: plain" in (copy / "README.md").read_text()
    assert main(["model", "info", str(copy)]) == 0
    said = capsys.readouterr().out
    assert "bits" in said and "8-bit (bitsandbytes)" in said
    assert main(["quantise", str(copy), "-o", str(tmp_path / "twice")]) == 2
    assert "M089" in capsys.readouterr().err and not (tmp_path / "twice").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--budget", "1.2"], "C136"),
        (["--kl", "0.1"], "C136"),
        (["--dynamic", "--budget", "0.9"], "C136"),
        (["--dynamic"], "M120"),
        (["--kind", "nf5"], "C003"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: list[str], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = make_model(tmp_path / "plain")
    assert main(["quantise", str(plain), "-o", str(tmp_path / "copy"), *options]) == 2
    assert code in capsys.readouterr().err and not (tmp_path / "copy").exists()
