"""Every method on the town: does it do what it is for? Means over seeds, on the 5 M seedling, with `hone train` and nothing else.

Manners: SFT on wanted and unwanted answers mixed, then DPO, KTO, ORPO, SimPO. Sums: SFT that gets about half of them right, then GRPO,
RLOO, PPO, online DPO with right or wrong as the reward. A reward model; a weak one that is fooled; students of half the depth.

`python -m bench.methods --out FOLDER` goes on where it stopped; `--only dpo kto` trains these and what they start from. Finished
results are kept in FOLDER/results, the summary in bench/results, the table in docs/methods.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import arms, common, graded
from bench.summary import document, summary
from hone.core.files import write_atomically
from hone.recipe.run import Wishes, prepare_run, train_run
from hone.recipe.words import read

ALWAYS = "data.held_out=0 hardware.dtype=float32 eval.every=100000 output.save_every=100000"
Result = dict[str, Any]


def result_of(name: str, out: Path, seed: int) -> Result:
    """What an arm came to: read where it is finished, else trained and asked now."""
    arm, place = arms.ARMS[name], out / "results" / f"{arms.run_of(name, Path(), seed).name}.json"
    for earlier in arms.needed(name):
        result_of(earlier, out, seed)
    if not _finished(name, place):
        print(f"{time.strftime('%H:%M:%S')}  {name}, seed {seed} ...", end="", flush=True)
        found = trained(name, out, 0 if arm.shared else seed)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(found))
        said = "  ".join(f"{key} {100 * sum(values) / len(values):.1f} %" for key, values in found["scores"].items())
        print(f"  {found['cpu_seconds']:.0f} CPU seconds  {said}", flush=True)
    return dict(json.loads(place.read_text("utf-8")))


def _finished(name: str, place: Path) -> bool:
    return place.is_file() and json.loads(place.read_text("utf-8"))["history"] == arms.history(name)


def trained(name: str, out: Path, seed: int) -> Result:
    """Train one arm as `hone train` does, and ask what it learned."""
    arm, runs, data = arms.ARMS[name], out / "runs", out / "data"
    if name == "school":
        (data / "taught.jsonl").unlink(missing_ok=True)
    if name == "sequence kd":
        arms.teach(runs / "school", data)
    run, began = arms.run_of(name, runs, seed), time.process_time()
    told = [word.format(data=data, runs=runs, seed=seed) for word in arm.words.split()]
    words = [*ALWAYS.split(), *told[1:], f"model={arms.start_of(arm, runs, seed)}", f"output={run}", f"seed={seed}"]
    command = " ".join(["hone train", *told, *words[-3:], *ALWAYS.split()]).replace(f"{out}/", "")
    raw, _ = read(told[0], words)
    with open(os.devnull, "w") as nowhere:
        prepared = prepare_run(raw, Console(file=nowhere))
        status = train_run(prepared, Wishes(fresh=True, command=command))
    if status:
        sys.exit(status)
    spent = time.process_time() - began
    scores = graded.measure(run, arm.asks, seed)
    return {
        "arm": name, "part": arm.part, "start": arm.start, "history": arms.history(name), "seed": seed, "cpu_seconds": spent,
        "scores": scores,
        "command": command.replace(str(common.ROOT) + "/", ""), "curve": graded.curve(run, arm.curve),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="data, runs and finished results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=list(arms.ARMS), default=list(arms.ARMS), help="arms; what they start from is added")
    parser.add_argument("--show", action="store_true", help="train nothing: the table of what is finished")
    options = parser.parse_args()
    out = options.out.resolve()
    if not options.show:
        arms.write_data(out / "data", options.seeds)
        for seed in options.seeds:
            for name in options.only:
                result_of(name, out, seed)
    every = [json.loads(file.read_text("utf-8")) for file in sorted((out / "results").glob("*.json"))]
    results = [result for result in every if result["history"] == arms.history(result["arm"])]
    found = {"machine": common.machine(), "summary": summary(results), "curves": [r for r in results if r["curve"]]}
    print(f"raw figures: {common.save('methods', found)}")
    print(f"the table: {document(found)}")


if __name__ == "__main__":
    main()
