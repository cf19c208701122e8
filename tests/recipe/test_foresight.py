"""`hone forecast` reads a run as it stands, and says of more data only what can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.cli.main import main
from hone.core.errors import HoneError
from hone.recipe.foresight import outlook, twice
from hone.report.folder import read_run


def run(folder: Path, *, rows: int = 100, steps: int = 40, total: int = 100, **data: Any) -> Path:
    """A run of some steps of a hundred, whose loss depends on the amount of its data."""
    folder.mkdir()
    settings = {"optim": {"epochs": 2.0}, "objective": {"name": "sft"}, "data": {"train": "t", "held_out": "h", **data}, "seed": 1}
    (folder / "resolved.json").write_text(json.dumps(settings))
    lines: list[dict[str, float]] = [{"step": i, "loss": 1.0 + 2.0 / (1 + i / 5), "epoch": 2.0 * i / total} for i in range(1, steps + 1)]
    lines += [{"step": i, "eval_loss": 1.0 + 3.0 * rows**-0.4 + 1.0 / (1 + i / 5)} for i in range(0, steps + 1, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "events.jsonl").write_text("")
    (folder / "ledger.json").write_text(json.dumps({"total": rows, "trained": {"rows": rows, "tokens": rows}}))
    return folder


def test_a_run_in_its_middle_has_an_outlook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = outlook(read_run(run(tmp_path / "a")))
    assert (found.step, found.total) == (40, 100) and found.end is not None
    assert found.end.low < found.end.value < found.now
    assert "step 40 of 100" in str(found) and "80 %" in str(found)
    early = outlook(read_run(run(tmp_path / "early", steps=10)))
    assert early.end is None and "after 15 %" in str(early)
    assert main(["forecast", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "at the end about" in said and "cannot be told from one run" in said and "weight: 0.25" in said
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    with pytest.raises(HoneError) as caught:
        outlook(read_run(tmp_path / "a"))
    assert caught.value.code == "C150"


def test_twice_the_data_is_told_from_three_amounts_only(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(rows), rows=rows, steps=100) for rows in (100, 200, 400)]
    rows, found = twice(runs)
    assert rows == 800 and found.low < 1.0 + 3.0 * 800**-0.4 + 1 / 21 < found.high
    for some in (runs[:1], runs[:2], [*runs, run(tmp_path / "other", rows=50, system="be brief")]):
        with pytest.raises(HoneError) as caught:
            twice(some)
        assert caught.value.code == "C151"
