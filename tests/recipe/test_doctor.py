"""The doctor on a real run: findings while it goes on, on the page and on the command line, and remedies that change just what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.cli.main import main as hone
from hone.core.errors import HoneError
from hone.core.events import Events
from hone.plan.doctor import Finding, Remedy
from hone.plan.doctor.base import Diagnosis
from hone.recipe.doctor import apply, changed, examine
from hone.recipe.settings import resolve
from tests.conftest import Work


@pytest.fixture(scope="module")
def leaky(work: Work, model_folder: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is measured on the rows that it learns."""
    folder = tmp_path_factory.mktemp("leaky") / "run"
    aside = folder.parent / "aside.jsonl"
    aside.write_text("".join(data_file.read_text().splitlines(keepends=True)[:20]))
    settings = {
        "model": model_folder, "data": data_file, "data.held_out": aside, "output": folder, "optim.learning_rate": 0.01, "optim.batch_size": 8,
        "optim.max_steps": 9, "eval.every": 3, "tuning.rank": 4, "hardware.dtype": "float32", "hardware.threads": 1,
    }  # fmt: skip
    log = folder.parent / "log.txt"
    assert work(["train", "sft", *(f"{key}={value}" for key, value in settings.items())], log=log) == 0, log.read_text()
    assert "H009" in log.read_text(), "the line is there while it goes on"
    return folder


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_findings_are_told_while_the_run_goes_on(leaky: Path) -> None:
    told = [event for event in lines(leaky, "events.jsonl") if event["kind"] == "finding"]
    first = next(event for event in told if event["code"] == "H009")
    assert first["step"] < 9 and first["what"] and first["evidence"]
    assert len({event["code"] for event in told}) == len(told), "each is told once"


def test_what_findings_need_is_written_down(leaky: Path) -> None:
    steps = [line for line in lines(leaky, "metrics.jsonl") if "loss" in line]
    assert all(line["update_ratio"] > 0 for line in steps)
    rows = lines(leaky, "rows.jsonl")
    assert [row["step"] for row in rows] == [0, 3, 6, 9]
    assert len(rows[0]["rows"]) == len(rows[0]["answers"]) == len(rows[-1]["loss"]) > 0
    facts = next(event for event in lines(leaky, "events.jsonl") if event["kind"] == "started")["facts"]
    assert facts["ends"] == 1 and facts["held_out_seen"] == 1 and facts["learned_tokens"] > 0


def test_rows_are_rewound_with_the_metrics(tmp_path: Path) -> None:
    events = Events(tmp_path)
    for step in (0, 5, 10):
        events.rows(step, [1.0, float("nan")])
    events.rewind(5)
    assert lines(tmp_path, "rows.jsonl") == [{"step": 0, "loss": [1.0, None]}, {"step": 5, "loss": [1.0, None]}]


def test_the_page_and_the_command_line_show_it(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (leaky / "report.html").read_text()
    assert "Diagnosis" in page and "held-out rows are trained" in page and "--apply 1" in page
    assert hone(["doctor", str(leaky)]) == 2
    out = capsys.readouterr().out
    assert "H009" in out and "not enough evidence" in out and "o held-out loss" in out
    assert hone(["doctor", str(leaky), "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert document["findings"][0]["remedies"] and document["facts"]["steps"] == 9


def test_a_remedy_is_a_run_file_that_differs_by_just_that(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number, change = 1, {"held_out": 0.1}
    assert examine(leaky)[1].remedies[0][1].change == {"data.held_out": 0.1}
    assert hone(["doctor", str(leaky), "--apply", str(number)]) == 0
    file = leaky.parent / f"run-remedy-{number}.yaml"
    assert f"hone train {file}" in capsys.readouterr().out
    before, after = (yaml.safe_load(one.read_text()) for one in (leaky / "recipe.yaml", file))
    assert resolve(after).data.held_out == 0.1 != before["data"]["held_out"]
    assert after == {**before, "data": before["data"] | change, "output": before["output"] | {"folder": str(file.with_suffix(""))}}


def test_arms_are_two_files_and_what_is_no_setting_is_refused(leaky: Path, tmp_path: Path) -> None:
    arms = Remedy("both", arms=({"optim.learning_rate": 0.1}, {"optim.learning_rate": 0.2}))
    one = Finding("H001", "overfitting", "", "", 0.9, (), (), None, (arms, Remedy("read the rows")))
    diagnosis = Diagnosis((one,), {}, ())
    files = [each.file for each in apply(leaky, diagnosis, 1, to=str(tmp_path / "try.yaml"))]
    assert [file.name for file in files] == ["try-a.yaml", "try-b.yaml"]
    assert [yaml.safe_load(file.read_text())["optim"]["learning_rate"] for file in files] == [0.1, 0.2]
    for number, code in ((2, "H041"), (3, "H040"), (0, "H040")):
        with pytest.raises(HoneError) as fault:
            apply(leaky, diagnosis, number)
        assert fault.value.code == code


def test_whole_sections_and_nested_settings_are_replaced() -> None:
    before = {"tuning": {"method": "full"}, "rollout": {"sampling": {"temperature": 1.0, "top_p": 0.9}}}
    after = changed(before, {"tuning": {"method": "lora"}, "rollout.sampling": {"temperature": 1.2}})
    assert after == {"tuning": {"method": "lora"}, "rollout": {"sampling": {"temperature": 1.2, "top_p": 0.9}}}
    assert before["tuning"] == {"method": "full"}


def test_the_probe_measures_the_model(leaky: Path) -> None:
    assert hone(["doctor", str(leaky), "--probe"]) == 2
    measured = json.loads((leaky / "probe.json").read_text())
    assert measured["drift"] > 0 and 0 <= measured["stops"] <= 1 and 0 < measured["rank_use"] <= 1
    assert "forgetting" not in examine(leaky)[1].unknown
