"""Every tuning method on the same rows: what it scores, moves, needs and makes the model forget. On the 5 M seedling, in fp32, one thread.

Two tasks: short instructions of the town (answers word for word), and sentences of financial news to be called positive, negative or
neutral. Each method runs with its defaults. Its learning rate is the adviser's or a third of it (three times it where few or small numbers
move, and for the base's own weights), whichever has less loss after half of the steps on town rows set aside, with a seed that is not
reported. Then each of three seeds: other rows, in another order, another start, the same for all methods. Also few examples of the town
(100, 500, 1000) for UniPELT with and without gates and for its parts.

`python -m bench.methods_peft --news FILE --out FOLDER` goes on where it stopped; `--only LoRA UniPELT`, `--seeds 1`, `--show`. Every
training runs in a process of its own. Finished results are kept in FOLDER/results, a summary in bench/results, the tables in docs/peft.md.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from bench import common
from bench.peft_arms import ARMS, BASE, FEW, Job, advised, made_of, place_of, work
from bench.peft_table import document, summary
from bench.peft_tasks import TASKS, write_tasks


class Desk:
    """Runs what is not finished, each in a fresh child of a server that has imported everything."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["bench.peft_arms", "peft"])

    def result(self, arm: str, task: str, seed: int, *, rate: float, rows: int | None = None, part: str = "table") -> dict[str, Any]:
        job: Job = {"arm": arm, "task": task, "seed": seed, "rate": rate, "rows": rows, "part": part, "made": made_of(arm, rows, part)}
        place = place_of(job, self.out)
        if not place.is_file() or json.loads(place.read_text("utf-8"))["made"] != job["made"]:
            self._train(job)
            print(f"{time.strftime('%H:%M:%S')}  {place.stem}: {said(json.loads(place.read_text('utf-8')))}", flush=True)
        return dict(json.loads(place.read_text("utf-8")))

    def _train(self, job: Job) -> None:
        child = self._processes.Process(target=work, args=(job, str(self.out)))
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(f"the training of {job} failed")

    def rate(self, arm: str) -> float:
        """The one of two learning rates with less loss on the town's rows that are set aside."""
        return rated(arm, min((1.0, ARMS[arm].other), key=lambda factor: self._loss(arm, factor)))

    def _loss(self, arm: str, factor: float) -> float:
        found = float(self.result(arm, "town", 0, rate=rated(arm, factor), part="rates")["aside"])
        return found if math.isfinite(found) else math.inf


def rated(arm: str, factor: float) -> float:
    """A learning rate, to two digits."""
    return float(f"{advised(arm) * factor:.1e}")


def said(found: dict[str, Any]) -> str:
    """A line for whoever watches."""
    score = f"score {100 * sum(found['scores']) / len(found['scores']):.1f} %, prose {found['prose']:.3f}" if "scores" in found else ""
    loss = f"loss {found['aside']:.3f}" if "aside" in found else ""
    return f"{score}{loss}, {found['cpu_seconds']:.1f} CPU s, {found['memory'] / 2**20:.0f} MB"


def finished(out: Path) -> Iterator[dict[str, Any]]:
    """All results that are there."""
    return (json.loads(file.read_text("utf-8")) for file in sorted((out / "results").glob("*.json")))


def run(desk: Desk, arms: list[str], seeds: list[int], tasks: list[str]) -> None:
    """Seed after seed and task after task, so that what is there is comparable; the few examples last."""
    for task in tasks:
        desk.result(BASE, task, 0, rate=0.0)
    for seed, task, arm in product(seeds, tasks, arms):
        for earlier in tasks if ARMS[arm].method == "fusion" else ():
            desk.result("Pfeiffer", earlier, seed, rate=desk.rate("Pfeiffer"))
        desk.result(arm, task, seed, rate=desk.rate(arm))
    for seed, arm, rows in product(seeds, [arm for arm in arms if ARMS[arm].few], FEW):
        desk.result(arm, "town", seed, rate=desk.rate(arm), rows=rows, part="few")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.methods_peft", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/methods_peft"), help="data, adapters and finished results")
    parser.add_argument("--news", type=Path, help="a JSON lines file of rows with sentence and label; without it the town alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=list(ARMS), default=list(ARMS), help="methods")
    parser.add_argument("--show", action="store_true", help="train nothing: the tables of what is finished")
    options = parser.parse_args()
    out = options.out.resolve()
    if not options.show:
        write_tasks(out / "data", options.news)
        run(Desk(out), options.only, options.seeds, [task for task in TASKS if (out / "data" / f"{task}.json").is_file()])
    found = {"machine": common.machine(), **summary(list(finished(out)))}
    print(f"raw figures: {common.save('methods-peft', found)}")
    print(f"the tables: {document(found)}")


if __name__ == "__main__":
    main()
