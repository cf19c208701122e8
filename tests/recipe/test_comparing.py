"""Runs are compared row by row where they can be, as strangers with a warning where they cannot, and never by unlike numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hone.cli.compare import show, sparkline
from hone.cli.main import main
from hone.core.errors import HoneError
from hone.eval import answers
from hone.eval.evaluate import Evaluation, Outcome
from hone.eval.heldout import HeldOut
from hone.recipe.comparing import compare
from hone.report.comparison import render


def run(folder: Path, *, rate: float = 1e-3, gap: float = 0.0, **more: Any) -> Path:
    """A run folder as training and `hone eval` leave it."""
    folder.mkdir()
    objective = more.get("objective", {"name": "sft"})
    settings = {"model": {"name": "m"}, "optim": {"learning_rate": rate}, "objective": objective, "output": {"folder": str(folder)}}
    (folder / "resolved.json").write_text(json.dumps(settings))
    lines = [{"step": i, "loss": 3.0 / (i + 1) + gap, "tokens": 100 * i, "seconds": 0.5, "memory_bytes": 1e6} for i in range(9)]
    lines += [{"step": i, "eval_loss": 3.0 / (i + 1) + gap} for i in (0, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "events.jsonl").write_text(json.dumps({"t": 0, "kind": "started", "trainable": 10, "parameters": 100}) + "\n")
    losses = tuple(float(7 * i % 11) + gap + 0.02 * (i % 3) for i in range(30))
    right = tuple(float(i < more.get("right", 10)) for i in range(30))
    data = more.get("data", "x")
    HeldOut(8, 8, objective, data, tuple(map(str, range(30))), {"units": (1.0,) * 30, "loss": losses, "accuracy": right}).save(folder)
    outcomes = [Outcome("town", f"q{i}", "a", "a", True, {"exact_match": right[i]}, source=data, row=i) for i in range(30)]
    answers.save(folder, Evaluation(tuple(outcomes)))
    return folder


def test_rows_that_are_the_same_are_paired_and_power_is_told(tmp_path: Path) -> None:
    found = compare([run(tmp_path / "a"), run(tmp_path / "b", rate=1e-4, gap=0.2), run(tmp_path / "c", right=12)])
    assert found.settings == (("optim.learning_rate", ("0.001", "0.0001", "0.001")),)
    loss, accuracy, town = found.measures
    assert [one.title for one in found.measures] == ["held-out loss", "held-out accuracy", "town: exact match"]
    b, c = loss.differences.values()
    assert b.apart and b.paired and b.value == pytest.approx(0.2) and loss.told(b) == "worse"
    assert not c.apart and loss.rows_needed(c) is None
    more = town.differences["C"]
    assert more.value == pytest.approx(2 / 30) and not more.apart and "may be chance" in town.told(more)
    assert (town.rows_needed(more) or 0) > 30 and accuracy.share
    assert "B is worse by 0.2" in found.verdict and "may differ by chance" in found.verdict
    costs = dict(found.costs())
    assert costs["tokens"] == ["800"] * 3 and costs["parameters that move"] == ["10"] * 3
    said = json.loads(json.dumps(found.to_json()))
    assert said["measures"][0]["differences"][0]["apart"] and said["settings"]["optim.learning_rate"]["B"] == "0.0001"


def test_other_rows_are_compared_as_strangers_with_a_warning(tmp_path: Path) -> None:
    found = compare([run(tmp_path / "a"), run(tmp_path / "b", gap=0.2, data="y")])
    assert not any(each.paired for one in found.measures for each in one.differences.values())
    assert "strangers" in found.warnings[0] and "not asked the same questions" in found.warnings[1]
    assert not found.measures[0].differences["B"].apart, "what pairs show, strangers hide"


def test_losses_of_different_objectives_are_never_compared(tmp_path: Path) -> None:
    other = {"objective": {"name": "dpo", "beta": 0.3}}
    found = compare([run(tmp_path / "a"), run(tmp_path / "b", **other)])
    assert [one.title for one in found.measures] == ["held-out accuracy", "town: exact match"]
    assert "different quantities" in found.warnings[0]


def test_an_unfinished_run_has_curves_and_no_scores(tmp_path: Path) -> None:
    one, two = run(tmp_path / "a"), run(tmp_path / "b")
    for name in ("held_out.json", "answers.json"):
        (two / name).unlink()
    found = compare([one, two])
    assert found.measures == () and len(found.warnings) >= 2 and len(found.curves()) == 2
    for bad in ([one], [one, one]):
        with pytest.raises(HoneError) as caught:
            compare(bad)
        assert caught.value.code == "C149"


def test_it_fits_a_narrow_terminal_and_a_page_without_scripts(tmp_path: Path) -> None:
    found = compare([run(tmp_path / "a"), run(tmp_path / "b", rate=1e-4, gap=0.2)])
    out = Console(width=60, force_terminal=True, no_color=True, record=True, highlight=False)
    show(found, out)
    text = out.export_text(styles=False)
    assert max(map(len, text.splitlines())) <= 60 and "optim.learning_rate" in text and "+0.2 from A" in text
    page = render(found)
    assert page.count("<svg") == 3 + 2 * 2 and "<script" not in page and "B is 0.2 behind" in page
    assert sparkline([0.0, 1.0, 2.0], (0.0, 2.0), plain=True) == "_=@" or len(sparkline([0.0, 1.0, 2.0], (0.0, 2.0))) == 3


def test_the_command_writes_what_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(run(tmp_path / "a")), str(run(tmp_path / "b", gap=0.2))]
    assert main(["compare", *folders, "--html", str(tmp_path / "c.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == {"A": folders[0], "B": folders[1]}
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
