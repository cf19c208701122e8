"""Examines the doctor: runs with a known fault and runs without one, three seeds; what it finds, and whether its first remedy helps.

    python -m bench.doctor run [--seeds 1,2,3]      trains what is not in the work folder yet; can be stopped and taken up again
    python -m bench.doctor judge                    diagnoses all runs, treats the curable ones, and writes the result

Both take --on seedling, whose runs cost about 14 seconds of processor time each; on the sprout, the default, they cost two or three, and
only what it is too small to learn is the seedling's. Seed 0 is for development: its rows, a third of each pool, are in no other seed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from bench.cases import SICK, WELL
from bench.common import machine, save, table
from bench.sprout import sprout
from bench.wards import Case, Ward, starter
from hone.core.errors import HoneError
from hone.demo import SEEDLING
from hone.plan.doctor import FINDINGS
from hone.recipe.doctor import apply, examine
from hone.recipe.probe import probe
from hone.recipe.run import Wishes, prepare_run, train_run, with_settings

DONE = "seconds.json"
"""Written last into a run's folder; it tells the processor time."""


def main() -> None:
    """Parse the arguments and do what they say."""
    parser = argparse.ArgumentParser(prog="python -m bench.doctor", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("run", "judge"))
    parser.add_argument("--on", choices=("sprout", "seedling"), default="sprout")
    parser.add_argument("--work", type=Path, help="where runs are kept; runs/doctor-exam, or runs/doctor-exam-seedling")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--part", default="0/1", help="one of several processes that share the work: 0/3, 1/3, 2/3")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    name = "doctor" if options.on == "sprout" else "doctor-seedling"
    work = options.work or Path("runs") / name.replace("doctor", "doctor-exam")
    if options.what == "judge":
        return judge_all(work, seeds, name)
    part, parts = map(int, options.part.split("/"))
    run_all(work, seeds, sprout(work / "sprout") if options.on == "sprout" else SEEDLING, part, parts)


def patients(work: Path, seeds: list[int]) -> Iterator[tuple[int, Case, Path]]:
    """Every run, as (seed, case, the folder of its files)."""
    for seed in seeds:
        for case in (*SICK, *WELL):
            yield seed, case, work / f"seed-{seed}" / re.sub(r"[^a-z0-9]+", "-", case.name.lower())


def run_all(work: Path, seeds: list[int], model: Path, part: int = 0, parts: int = 1) -> None:
    """Train and probe whatever is missing. The first of several processes has to have made the starters before the others begin."""
    for seed in seeds:
        started = work / f"seed-{seed}" / "starter"
        train(starter(Ward(started, seed, model=model, starter=model)), started / "run")
    for seed, case, folder in list(patients(work, seeds))[part::parts]:
        if not (folder / "run" / DONE).is_file():
            raw = case.make(Ward(folder, seed, model=model, starter=work / f"seed-{seed}" / "starter" / "run" / "model"))
            train(raw, folder / "run")


def train(raw: dict[str, Any], folder: Path, *, probed: bool = True) -> None:
    """One run from its settings, with the probe; nothing where it is there already."""
    if (folder / DONE).is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    started = time.process_time()
    run = prepare_run(with_settings(raw, output={"folder": str(folder)}), Console(quiet=True))
    train_run(run, Wishes(fresh=True, command="hone train"))
    if probed:
        probe(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    seconds = time.process_time() - started
    (folder / DONE).write_text(json.dumps({"seconds": round(seconds, 2)}))
    print(f"{folder.parent.parent.name} {folder.parent.name} {folder.name}: {seconds:.1f} s", flush=True)


def judge_all(work: Path, seeds: list[int], name: str) -> None:
    """Diagnose and treat every run that is there, and write what came of it."""
    results = [judge(seed, case, folder) for seed, case, folder in patients(work, seeds) if (folder / "run" / DONE).is_file()]
    counts = score(results)
    treated = [result for result in results if result["treated"] is not None]
    helped = sum(result["treated"]["after"] < result["treated"]["before"] for result in treated)
    print(table(("finding", "right", "missed", "wrong"), [(code, *map(str, row)) for code, row in counts["by_code"].items()]))
    print(json.dumps({key: value for key, value in counts.items() if key != "by_code"}, indent=1))
    print(f"first remedy lowered the held-out loss in {helped} of {len(treated)}")
    seconds = sum(json.loads(file.read_text())["seconds"] for file in work.rglob(DONE))
    found = {"machine": machine(), "seeds": seeds, "processor_seconds": round(seconds), **counts, "helped": helped, "treated": len(treated)}
    print(save(name, {**found, "runs": results}))


def judge(seed: int, case: Case, folder: Path) -> dict[str, Any]:
    """One run: what was found, against what is wrong with it; and what its first remedy did, where settings can cure it."""
    run = folder / "run"
    chart, diagnosis = examine(run)
    found = [one.code for one in diagnosis.findings]
    hit = [code for code in found if code in case.must]
    treated = treat(run, hit[0], chart.held[-1]) if case.curable and hit else None
    return {
        "seed": seed, "case": case.name, "must": list(case.must), "may": list(case.may), "found": found,
        "confidence": [one.confidence for one in diagnosis.findings], "steps": chart.steps, "treated": treated,
    }  # fmt: skip


def treat(run: Path, code: str, before: float) -> dict[str, Any] | None:
    """Train the first remedy of a finding that settings can bring; the held-out loss of the end, before and after."""
    diagnosis = examine(run)[1]
    numbered = [(number, remedy) for number, (one, remedy) in enumerate(diagnosis.remedies, start=1) if one.code == code and remedy.changes]
    number, remedy = numbered[0]
    after = []
    for one in apply(run, diagnosis, number):
        settings = yaml.safe_load(one.file.read_text("utf-8"))
        try:
            train(settings, Path(settings["output"]["folder"]), probed=False)
            after.append(final(Path(settings["output"]["folder"])))
        except HoneError as error:
            print(f"{one.file}: {error}", flush=True)
            after.append(float("inf"))
    return {"code": code, "remedy": remedy.title, "before": before, "after": min(after)}


def final(folder: Path) -> float:
    """The held-out loss of the weights that a run ends with: the best ones where it keeps those."""
    chart = examine(folder)[0]
    return min(chart.held) if chart["eval.keep_best"] else chart.held[-1]


def score(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Right: a fault with one of its findings. Missed: a fault without. Wrong: a finding that is neither asked for nor true of the case."""
    right, missed, wrong = Counter[str](), Counter[str](), Counter[str]()
    for result in results:
        found, must = result["found"], result["must"]
        if must:
            right[must[0]] += any(code in must for code in found)
            missed[must[0]] += not any(code in must for code in found)
        wrong.update(code for code in found if code not in must and code not in result["may"])
    sick = sum(bool(result["must"]) for result in results)
    healthy = [result for result in results if not result["must"]]
    return {
        "by_code": {code: (right[code], missed[code], wrong[code]) for code in FINDINGS},
        "sick": sick,
        "healthy": len(healthy),
        "healthy_without_finding": sum(not result["found"] for result in healthy),
        "recall": right.total() / max(1, sick),
        "precision": right.total() / max(1, right.total() + wrong.total()),
    }


if __name__ == "__main__":
    main()
