"""Arms of a sweep in one pass against one after the other: wall-clock of the same training, in fresh processes, interleaved.

`python -m bench.sweep` trains the seedling with several LoRAs at several sizes of step; `--quick` only shows that it works.
Both ways prepare the data and load the base once, so what differs is the loop. A gate holds the two to the same weights.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import ROOT, machine, save, spread, table, wait_until_idle

SEEDLING = ROOT / "hone" / "demo" / "seedling"
WORDS = "harbour baker ship bread lantern rope market clock river apple".split()
APART = 1e-5


def raws(job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """The arms: other ranks, rates and seeds. No rows of tokens move, for which every arm would need a head of its own."""
    return [
        {
            "model": {"name": str(SEEDLING)}, "data": {"train": job["data"], "held_out": 0.05},
            "tuning": {"rank": (4, 8, 16, 32)[k % 4], "tokens": []}, "seed": k, "eval": {"every": 10**6},
            "output": {"folder": str(folder / str(k)), "save_every": 10**6},
            "optim": {"max_steps": job["steps"], "batch_size": job["rows"], "learning_rate": 1e-3 * (1 + k)},
            "hardware": {"threads": job["threads"], "dtype": "float32", "token_budget": 2048},
        }
        for k in range(job["arms"])
    ]  # fmt: skip


def child(job: dict[str, Any]) -> None:
    """Train all arms one way and write how long the training took."""
    from rich.console import Console

    from hone.recipe import together
    from hone.recipe.run import Wishes, prepare_run, train_run
    from hone.recipe.stores import Stores

    quiet, stores = Console(quiet=True, force_terminal=False), Stores(shared=True)
    runs = [prepare_run(raw, quiet, stores) for raw in raws(job, Path(job["folder"]))]
    assert all(together.joinable(run) for run in runs)
    started = time.perf_counter()
    if job["way"] == "one pass":
        assert together.train_runs(runs, [Wishes() for _ in runs], stores, quiet, print) == 0
    else:
        assert all(train_run(run, Wishes()) == 0 for run in runs)
    whole = time.perf_counter() - started
    steps = [json.loads(line) for run in runs for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    loop = sum(line["seconds"] for line in steps if "seconds" in line)
    Path(job["out"]).write_text(json.dumps({"seconds": whole, "loop": loop}))


def weights_apart(first: Path, second: Path, arms: int) -> float:
    """The largest relative distance of an arm's tensors in two folders."""
    from safetensors.torch import load_file

    worst = 0.0
    for k in range(arms):
        one, other = (load_file(folder / str(k) / "adapter" / "adapter_model.safetensors") for folder in (first, second))
        worst = max(worst, *(float((one[name] - other[name]).norm() / other[name].norm().clamp(min=1e-12)) for name in other))
    return worst


def measure(cell: dict[str, Any], repeats: int, place: Path) -> dict[str, Any]:
    """Both ways of one cell, A B A B, each in a fresh process."""
    found: dict[str, list[dict[str, float]]] = {"one pass": [], "one by one": []}
    for repeat in range(repeats):
        for way in found:
            folder = place / f"{way}-{repeat}".replace(" ", "-")
            job = cell | {"way": way, "folder": str(folder), "out": str(place / "out.json")}
            file = place / "job.json"
            file.write_text(json.dumps(job))
            env = os.environ | {"OMP_NUM_THREADS": str(cell["threads"]), "HF_HUB_OFFLINE": "1"}
            subprocess.run(
                [sys.executable, "-m", "bench.sweep", "--child", str(file)], env=env, cwd=ROOT, check=True, stdout=subprocess.DEVNULL
            )
            found[way].append(json.loads(Path(job["out"]).read_text()))
    apart = weights_apart(place / "one-pass-0", place / "one-by-one-0", cell["arms"])
    figures = {way: {name: spread(run[name] for run in runs) for name in ("seconds", "loop")} for way, runs in found.items()}
    ratio = {name: figures["one by one"][name]["median"] / figures["one pass"][name]["median"] for name in ("seconds", "loop")}
    return {"cell": cell, "runs": found, **figures, "times_as_fast": ratio, "weights_apart": apart, "same": apart <= APART}


def data(place: Path, rows: int, words: int) -> str:
    """Rows of about so many words."""
    import random

    dice, file = random.Random(0), place / "rows.jsonl"
    with file.open("w") as out:
        for _ in range(rows):
            said = [dice.choice(WORDS) for _ in range(words)]
            out.write(json.dumps({"prompt": "Say these words again: " + " ".join(said), "completion": " ".join(said[: words // 2])}) + "\n")
    return str(file)


def row(one: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    cell, ratio = one["cell"], one["times_as_fast"]
    times = [f"{one[way]['loop']['median']:.1f} s" for way in ("one by one", "one pass")]
    apart = f"{one['weights_apart']:.1e}" + ("" if one["same"] else " DIFFERENT")
    return (f"{cell['arms']} arms, {cell['rows']} rows a step", *times, f"{ratio['loop']:.2f}", f"{ratio['seconds']:.2f}", apart)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", type=Path)
    asked = parser.parse_args()
    if asked.child:
        child(json.loads(asked.child.read_text()))
        return
    sizes, repeats, steps = ([(2, 4)], 1, 4) if asked.quick else ([(1, 4), (2, 4), (4, 4), (16, 4), (4, 8)], 3, 60)
    load = 0.0 if asked.quick else wait_until_idle(120)
    results = []
    with tempfile.TemporaryDirectory() as made:
        for number, (rows, arms) in enumerate(sizes):
            place = Path(made) / str(number)
            place.mkdir()
            cell = {"rows": rows, "arms": arms, "steps": steps, "threads": asked.threads, "data": data(place, 400, 12)}
            results.append(measure(cell, repeats, place))
    lines = [row(one) for one in results]
    print(table(("", "one by one", "one pass", "times as fast", "with saving", "weights apart"), lines))
    file = save("sweep-quick" if asked.quick else "sweep", {"machine": machine(), "load_before": load, "results": results})
    print(file.relative_to(ROOT))


if __name__ == "__main__":
    main()
