"""The whole story on the embedded model: plan, look, examine, fine-tune, examine again, report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from hone.core.files import write_atomically
from hone.core.types import Example, Message, Origin
from hone.demo import SEEDLING, Town
from hone.eval.evaluate import Evaluation, by_model, compare, evaluate
from hone.recipe.run import Run, Wishes, prepare_run, train_run
from hone.report import card, page
from hone.rollout.sample import Sampler

LONGEST_ANSWER = 36
"""Tokens; the longest right answer has 34."""
SETTINGS: dict[str, Any] = {
    "tuning": {"method": "lora", "rank": 16},
    "objective": {"name": "sft"},
    "optim": {"learning_rate": 4e-3, "epochs": 2, "batch_size": 16, "warmup_ratio": 0.05},
    "eval": {"max_rows": 64},
    "hardware": {"token_budget": 2048},
    "seed": 7,
}
"""The seedling is small, and small models take large steps: the rate is twenty times that of a model of 7 B."""


def write_data(folder: Path) -> dict[str, Path]:
    """The town's questions as two files: one to learn from, and one whose entities and phrasings are in neither the first
    nor any other training document's questions."""
    folder.mkdir(parents=True, exist_ok=True)
    town, files = Town(), {}
    for split in ("train", "held_out"):
        files[split] = folder / f"{split}.jsonl"
        rows = town.instructions(split)
        write_atomically(files[split], "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return files


def prepare_demo(folder: Path, console: Console) -> tuple[Run, Path]:
    """The run of the demo, not yet trained, and the file with the held-out questions."""
    files = write_data(folder / "data")
    raw = SETTINGS | {
        "model": {"name": str(SEEDLING)},
        "data": {"train": str(files["train"]), "held_out": str(files["held_out"]), "format": "messages"},
        "output": {"folder": str(folder)},
    }
    return prepare_run(raw, console), files["held_out"]


def examine(run: Run, questions: Path) -> Evaluation:
    """Exact match of every answer, by task, on questions that were never trained."""
    lines = questions.read_text("utf-8").splitlines()
    rows = [_example(json.loads(line), Origin(questions.name, number)) for number, line in enumerate(lines, start=1)]
    sampler = Sampler(run.policy.model, run.loaded.tokenizer, rows=128)
    answer = by_model(sampler.generate, run.template, max_new_tokens=LONGEST_ANSWER)
    return evaluate(answer, rows, metrics=("exact_match",))


def _example(row: dict[str, Any], origin: Origin) -> Example:
    conversation = tuple(Message(m["role"], m["content"]) for m in row["messages"])
    return Example((conversation,), columns={"task": row["task"]}, origin=origin)


def demo(folder: Path, console: Console, show: Any) -> dict[str, Any]:
    """Run the story; `show` prints the plan of a run. Returns the comparison, which is also in evaluation.json."""
    begin = time.monotonic()
    run, questions = prepare_demo(folder, console)
    show(run, console)
    console.print("\nBefore: the base model answers the held-out questions ...")
    before = examine(run, questions)
    console.print("Training:")
    status = train_run(run, Wishes(fresh=True, command="hone demo"))
    if status:
        raise SystemExit(status)
    console.print("After: the same questions again ...")
    after = examine(run, questions)
    found = compare(before, after)
    write_atomically(folder / "evaluation.json", json.dumps(found, indent=1, ensure_ascii=False))
    page.write_report(folder)
    card.write_card(folder)
    return found | {"seconds": time.monotonic() - begin}
