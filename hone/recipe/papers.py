"""What a run writes down before its first step: its settings, the fate of its rows, and the first event of its diary."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import yaml

from hone.core.files import write_atomically
from hone.plan.hardware import hardware
from hone.recipe.build import sizes
from hone.recipe.seen import data_facts

if TYPE_CHECKING:
    from hone.recipe.run import Run

OF_THE_LAST_START = (
    "metrics.jsonl", "rows.jsonl", "events.jsonl", "evaluation.json", "answers.json", "held_out.json", "memory.json", "probe.json",
)  # fmt: skip
"""Files that a run which begins anew must not inherit."""


def settings_of(run: Run) -> dict[str, Any]:
    """The settings alone."""
    return {key: value for key, value in run.recipe.resolved.items() if key != "reasons"}


def write_papers(run: Run, step: int, command: str) -> None:
    """resolved.json, recipe.yaml, ledger.json and the event that the run starts, or goes on after `step`."""
    if step == 0:
        for name in OF_THE_LAST_START:
            (run.folder / name).unlink(missing_ok=True)
    run.events.rewind(step)
    write_atomically(run.folder / "resolved.json", json.dumps(run.recipe.resolved, indent=2, ensure_ascii=False))
    write_atomically(run.folder / "recipe.yaml", yaml.safe_dump(settings_of(run), sort_keys=False, allow_unicode=True))
    run.prepared.ledger.save(run.folder / "ledger.json")
    facts = sizes(run.policy) | {"base_fingerprint": run.loaded.fingerprint, "data": run.prepared.sources, "environment": _environment()}
    facts["facts"] = data_facts(run.prepared, run.template.stop_ids) | {"rate": run.recipe.tuning.about.learning_rate}
    command = command or shlex.join(["hone", *sys.argv[1:]])
    run.events.emit("resumed" if step else "started", step=step, command=command, **facts)


def _environment() -> dict[str, Any]:
    found = asdict(hardware("."))
    return {key: value for key, value in found.items() if value} | {name: version(name) for name in ("torch", "transformers", "hone-llm")}
