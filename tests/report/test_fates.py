from __future__ import annotations

import json
from pathlib import Path

from hone.core.types import Origin
from hone.data.ledger import Ledger
from hone.report.fates import Fate, read_fates
from hone.report.folder import RunFolder
from hone.report.verdict import findings


def written(ledger: Ledger, path: Path) -> dict[str, object]:
    ledger.save(path)
    found: dict[str, object] = json.loads(path.read_text("utf-8"))
    return found


def test_the_ledger_of_a_run_is_read_back_whole(tmp_path: Path) -> None:
    ledger = Ledger()
    for row in range(1, 5):
        ledger.trained(Origin("a.jsonl", row), 10)
    ledger.held_out(Origin("a.jsonl", 5), 7)
    ledger.truncated(Origin("a.jsonl", 6), 100, 25)
    ledger.masked(Origin("a.jsonl", 7), "weight 0 on every turn")
    ledger.dropped(Origin("b.jsonl", 1), "D020", "no messages")
    ledger.dropped(Origin("b.jsonl", 2), "D020", "no messages")
    ledger.total(9)
    fates = read_fates(written(ledger, tmp_path / "ledger.json"))
    assert fates is not None and fates.adds_up and fates.total == 9
    assert list(fates.all) == [
        Fate("trained", 4, 40, ""),
        Fate("held_out", 1, 7, ""),
        Fate("truncated", 1, 100, "25 tokens cut off"),
        Fate("masked", 1, 0, "weight 0 on every turn"),
        Fate("dropped", 2, 0, "D020 no messages"),
    ]
    text = " ".join(finding.text for finding in findings(RunFolder(tmp_path), fates))
    assert "2 rows of 9 did not take part" in text and "1 row lost its end" in text


def test_a_ledger_that_does_not_add_up_is_called_out(tmp_path: Path) -> None:
    fates = read_fates({"total": 10, "trained": {"rows": 8, "tokens": 80}})
    assert fates is not None and not fates.adds_up
    (finding,) = findings(RunFolder(tmp_path), fates)
    assert finding.tone == "bad" and "8 fates for 10 rows" in finding.text


def test_no_ledger_no_fates() -> None:
    assert read_fates({}) is None
