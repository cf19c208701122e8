"""`hone prove` from settings to proof.json: healthy runs pass, a loss of one's own that takes a mean does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.cli.main import main
from hone.core.seal import whole
from hone.prove import PROOFS

MEAN = '''
from hone.core.types import Loss
from hone.objectives import objective


@objective(needs="logp", unit="token")
def averaged(s) -> Loss:
    """Negative log-likelihood, wrongly averaged over what is at hand."""
    return Loss(-(s.logp * s.batch.weight_N).mean())
'''


def test_a_healthy_run_is_proved_and_its_record_sealed(
    model_folder: Path, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model={model_folder}", f"data={data_file}", "tuning.dropout=0.1", f"output.folder={tmp_path}", "hardware.threads=1"]
    assert main(["prove", "sft", *words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    document = json.loads((tmp_path / "proof.json").read_text("utf-8"))
    assert shown == document and whole(document) and document["holds"]
    assert [one["name"] for one in document["proofs"]] == sorted(PROOFS, key=lambda name: PROOFS[name].code)
    assert sum(one["measured"] is not None for one in document["proofs"]) >= 19
    assert document["settings"]["tuning"]["dropout"] == 0.1
    assert document["data"] == [{"source": str(data_file), "rows_read": 60, "sha256": document["data"][0]["sha256"]}]
    assert not whole(document | {"holds": False})


def test_a_loss_that_takes_a_mean_fails_by_name(
    model_folder: Path, data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MEAN)
    words = [f"objective.name={mine}:averaged", f"model={model_folder}", f"data={data_file}", f"output.folder={tmp_path / 'run'}"]
    run_file = tmp_path / "run.yaml"
    run_file.write_text(f"objective: {{name: '{mine}:averaged'}}\nmodel: {{name: {model_folder}}}\ndata: {{train: {data_file}}}\n")
    assert main(["prove", str(run_file), *words[3:]]) == 1
    said = capsys.readouterr().out
    assert "FAIL accumulation" in said and "hone explain V001" in said
    assert not json.loads((tmp_path / "run" / "proof.json").read_text("utf-8"))["holds"]


def test_a_run_folder_is_proved_where_it_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", str(tmp_path)]) == 4
    assert "F061" in capsys.readouterr().err
