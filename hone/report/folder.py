"""Reads a run folder as it is: whole, half-written or nearly empty. Views never open files themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError
from hone.report.numbers import finite

Record = Mapping[str, Any]

PURPOSE = {
    "resolved.json": "the settings",
    "metrics.jsonl": "the curves",
    "events.jsonl": "the timeline",
    "ledger.json": "what happened to each row",
}
"""What every run writes, and what it is for. An evaluation is not made in every run, so its absence is no problem."""


@dataclass(frozen=True)
class RunFolder:
    """Everything that the reports know about a run. What could not be read is named in `problems`, by file."""

    path: Path
    resolved: Record = field(default_factory=dict)
    steps: tuple[Record, ...] = ()
    """Training lines of metrics.jsonl, one a step, in order."""
    held_out: tuple[Record, ...] = ()
    """Lines that carry `eval_loss`."""
    events: tuple[Record, ...] = ()
    ledger: Record = field(default_factory=dict)
    evaluation: Record = field(default_factory=dict)
    proof: Record = field(default_factory=dict)
    rows: tuple[Record, ...] = ()
    """Lines of rows.jsonl: the loss of each held-out row, one line an evaluation."""
    probe: Record = field(default_factory=dict)
    """What `hone doctor --probe` measured."""
    problems: Mapping[str, str] = field(default_factory=dict)

    def of_kind(self, *kinds: str) -> list[Record]:
        """Events of these kinds, in order."""
        return [event for event in self.events if event.get("kind") in kinds]

    def last(self, kind: str) -> Record:
        """The latest event of a kind, or an empty record."""
        return next((event for event in reversed(self.events) if event.get("kind") == kind), {})

    def series(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of one metric, leaving out what is not a finite number."""
        lines = self.held_out if name.startswith("eval_") else self.steps
        pairs = ((finite(line["step"]), finite(line.get(name))) for line in lines)
        return [(step, value) for step, value in pairs if step is not None and value is not None]

    def section(self, name: str) -> Record:
        """One section of the settings, empty when there is none."""
        return record(self.resolved.get(name))


def read_run(folder: Path | str) -> RunFolder:
    """Read a run folder. Raises F061 if there is no such folder; a missing or damaged file is only noted."""
    path = Path(folder)
    if not path.is_dir():
        raise HoneError("F061", "there is no run folder here", where=str(path), fix="give the folder that `hone train` wrote")
    problems: dict[str, str] = {}
    lines = _lines(path / "metrics.jsonl", problems)
    stepped = [line for line in lines if finite(line.get("step")) is not None]
    return RunFolder(
        path=path,
        resolved=_document(path / "resolved.json", problems),
        steps=_latest(line for line in stepped if "loss" in line),
        held_out=_latest(line for line in stepped if "eval_loss" in line),
        events=tuple(_lines(path / "events.jsonl", problems)),
        ledger=_document(path / "ledger.json", problems),
        evaluation=_document(path / "evaluation.json", problems),
        proof=_document(path / "proof.json", problems),
        rows=_latest(line for line in _lines(path / "rows.jsonl", problems) if finite(line.get("step")) is not None),
        probe=_document(path / "probe.json", problems),
        problems=problems,
    )


def record(value: object) -> Record:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def records(value: object) -> list[Record]:
    """The mappings in a list, or nothing."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def plain(value: object) -> str:
    """A value as people read it: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _latest(lines: Any) -> tuple[Record, ...]:
    """One line a step, in order: a resumed run writes some steps again, and the later line counts."""
    by_step = {line["step"]: line for line in lines}
    return tuple(by_step[step] for step in sorted(by_step))


def _document(file: Path, problems: dict[str, str]) -> Record:
    text = _text(file, problems)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        problems[file.name] = f"{file.name} is not valid JSON"
        return {}
    if not isinstance(found, dict):
        problems[file.name] = f"{file.name} is not a JSON object"
        return {}
    return found


def _lines(file: Path, problems: dict[str, str]) -> list[Record]:
    """The objects of a JSON-lines file. A run that was killed may have left half a line."""
    text = _text(file, problems)
    found: list[Record] = []
    broken = 0
    for line in (text or "").split("\n"):
        try:
            value = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found += [value] if value else []
        else:
            broken += 1
    if broken:
        problems[file.name] = f"{file.name}: {broken} unreadable line{'s' if broken > 1 else ''} passed over"
    return found


def _text(file: Path, problems: dict[str, str]) -> str | None:
    if not file.is_file():
        if file.name in PURPOSE:
            problems[file.name] = f"{file.name} is missing, so {PURPOSE[file.name]} cannot be shown"
        return None
    return file.read_text("utf-8", errors="replace")
