"""Real data through four methods and three small models: do they run, does the ledger add up, what do held-out rows say?

DPO on harmless dialogues, KTO and a reward model on rewarded turns at a till, SFT on school maths. The models are far too small to become
good at any of it; what counts is that every row has one fate and that numbers are reported on rows that were never learned.
`python -m bench.real --data FOLDER --models M ...`; the folder is that with hh_rlhf_harmless_test, taskmaster4_reward and gsm8k.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import common
from hone.demo import SEEDLING
from hone.eval.intervals import wilson
from hone.recipe.run import Wishes, prepare_run, train_run
from hone.recipe.words import read

JOBS = {"dpo": "hh", "kto": "turns", "pointwise_rm": "turns", "sft": "maths"}
"""Objective -> data."""
SETTINGS = (
    "optim.max_steps=40 optim.batch_size=8 data.max_length=256 data.held_out=0.2 data.skip_bad=true eval.every=40 eval.max_rows=200 "
    "hardware.dtype=float32"
)
ROWS = 1200
FATES = ("trained", "held_out", "truncated", "masked", "dropped")
Row = dict[str, Any]


def dialogues(folder: Path) -> Iterator[Row]:
    """Pairs of whole conversations; the shorter ones, as the models' contexts are short."""
    with gzip.open(folder / "hh_rlhf_harmless_test" / "pairs.jsonl.gz", "rt") as file:
        yield from (json.loads(line) for line in file if len(line) < 1500)


def turns(folder: Path) -> Iterator[Row]:
    """What a clerk's assistant said next, and whether it was right."""
    for file in sorted((folder / "taskmaster4_reward" / "reward").glob("reward_*.json.gz")):
        for turn in json.loads(gzip.decompress(file.read_bytes())):
            before = [str(each.get("text") or each.get("api") or each.get("response"))[:80] for each in json.loads(turn["context"])[-3:]]
            yield {"prompt": " | ".join(before)[:160], "completion": turn["generation"][:120], "label": turn["reward"] > 0.5}


def maths(folder: Path) -> Iterator[Row]:
    """Questions with worked answers."""
    with gzip.open(folder / "gsm8k" / "train.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            yield {"prompt": row["question"], "completion": row["answer"]}


READERS = {"hh": dialogues, "turns": turns, "maths": maths}


def run(objective: str, model: str, data: Path, place: Path) -> Row:
    """Train, and read what the run folder says."""
    words = [*SETTINGS.split(), f"model={model}", f"data={data}", f"output={place}"]
    started = time.perf_counter()
    with open(os.devnull, "w") as nowhere:
        status = train_run(prepare_run(read(objective, words)[0], Console(file=nowhere)), Wishes(fresh=True))
    if status:
        sys.exit(status)
    ledger = json.loads((place / "ledger.json").read_text("utf-8"))
    lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text("utf-8").splitlines()]
    watched = [line for line in lines if "eval_loss" in line]
    fates = {fate: ledger[fate]["rows"] for fate in FATES}
    found = {
        "objective": objective,
        "model": Path(model).name,
        "rows": ledger["total"],
        "fates": fates,
        "seconds": time.perf_counter() - started,
    }
    found["adds_up"] = ledger["total"] == sum(fates.values())
    found |= {"loss_before": watched[0]["eval_loss"], "loss_after": watched[-1]["eval_loss"]}
    if "eval_accuracy" in watched[-1]:
        asked = min(200, fates["held_out"])
        found["accuracy"] = wilson(watched[-1]["eval_accuracy"] * asked, asked).to_json()
    return found


def table(rows: list[Row]) -> str:
    """As Markdown."""
    lines = [
        "| method | model | rows | ledger adds up | held-out loss | held-out accuracy | seconds |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        sure = row.get("accuracy")
        accuracy = f"{100 * sure['value']:.0f} % ({100 * sure['low']:.0f} to {100 * sure['high']:.0f})" if sure else ""
        cells = (
            row["objective"], row["model"], f"{row['rows']:,}", "yes" if row["adds_up"] else "**no**",
            f"{row['loss_before']:.3f} to {row['loss_after']:.3f}", accuracy, f"{row['seconds']:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the three data sets")
    parser.add_argument("--models", nargs="+", default=[str(SEEDLING)], help="folders of models")
    parser.add_argument("--out", type=Path, default=Path("runs/real"), help="where the runs go")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, rows in READERS.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in islice(rows(options.data), ROWS))
        (options.out / f"{name}.jsonl").write_text(text, "utf-8")
    found = []
    for model in options.models:
        for objective, data in JOBS.items():
            found.append(run(objective, model, options.out / f"{data}.jsonl", options.out / f"{Path(model).name}-{objective}"))
            print(f"  {found[-1]['model']} {objective}: {found[-1]['seconds']:.0f} s", flush=True)
    print(f"\n{table(found)}\n\nraw figures: {common.save('real', {'machine': common.machine(), 'settings': SETTINGS, 'runs': found})}")
    if not all(row["adds_up"] for row in found):
        sys.exit("a ledger does not add up")


if __name__ == "__main__":
    main()
