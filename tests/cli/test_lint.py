"""`hone lint`: findings with their changes, a mended run file, and switches that contradict each other."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import yaml

from hone.cli.main import main
from hone.core.errors import HoneError
from hone.recipe.words import MODES, read

RUN = {
    "model": "no/such-model",
    "data": {"train": "none.jsonl", "held_out": 0},
    "optim": {"learning_rate": 2e-5},
    "eval": {"keep_best": True},
}


def run_file(folder: Path, document: object) -> str:
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


def test_findings_and_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", run_file(tmp_path, RUN)]) == 2
    told = capsys.readouterr().out
    assert "C135 error" in told and "C102 warning" in told and "optim.learning_rate=0.0002" in told
    assert "not looked at" in told, "the model is not here, and that is said"


def test_json_and_a_mended_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = run_file(tmp_path, RUN), tmp_path / "mended.yaml"
    main(["lint", file, "--json", "--fix", str(out)])
    codes = [finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]]
    assert codes[0] == "C135" and "C121" in codes
    assert main(["lint", str(out)]) == 0
    assert yaml.safe_load(out.read_text())["optim"]["learning_rate"] == 2e-4


@pytest.mark.parametrize("pair", list(itertools.combinations(MODES, 2)))
def test_each_pair_of_modes_is_an_error_that_names_both(pair: tuple[str, str], tmp_path: Path) -> None:
    words = ["model=a/b", "data=x.jsonl"]
    for given in (
        lambda: read("sft", [*words, *(f"{key}=true" for key in pair)]),
        lambda: read(run_file(tmp_path, dict.fromkeys(pair, True)), words),
    ):
        with pytest.raises(HoneError) as caught:
            given()
        assert caught.value.code == "C100"
        assert all(key in caught.value.what and f"keep {key}" in caught.value.fix for key in pair)


def test_full_tuning_by_its_own_name_contradicts_too() -> None:
    with pytest.raises(HoneError) as caught:
        read("sft", ["model=a/b", "data=x.jsonl", "tuning=full", "load_in_4bit=true"])
    assert caught.value.code == "C100" and "tuning.method" in caught.value.what
    read("sft", ["model=a/b", "data=x.jsonl", "full_finetuning=true", "load_in_4bit=false"])
