"""Runs contenders in fresh processes over one workload, checks that they trained the same, and draws the table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import common, gates

Run = dict[str, Any]
RATES = ("tokens_per_second", "supervised_per_second", "groups_per_second", "steps_per_second")
MEASURED = (*RATES, "seconds", "seconds_with_warmup", "process_seconds", "peak_bytes")


@dataclass(frozen=True)
class Match:
    """What is compared: a method, how much of it, and who takes part."""

    method: str
    groups: int
    """Groups of an optimiser step."""
    contenders: Callable[[Arena, str], list[Any]]
    """(arena, type) to plans, hone's first."""
    steps: int
    warmup: int
    rounds: int = 3
    probe: tuple[int, int] = (8, 3)
    """Steps, and how many of them are warm-up, with which the rival's best settings are looked for."""


def child(job: Path) -> None:
    """One run of one contender, in this process."""
    import torch
    from safetensors.torch import save_file

    from bench import workload

    plan = workload.Plan(**json.loads(job.read_text()))
    torch.set_num_threads(plan.threads)
    if plan.library == "hone":
        from bench.with_hone import run
    else:
        from bench.with_trl import run
    model, adapter, data = workload.read(job.parent, plan)
    outcome = run(model, adapter, data, plan)
    save_file(outcome.final, job.with_suffix(".safetensors"))
    timed = [s for group in data[plan.warmup * plan.groups :] for s in group]
    seconds = outcome.ends[-1] - outcome.ends[plan.warmup]
    report = {
        "plan": asdict(plan),
        "losses": outcome.losses,
        "norms": outcome.norms,
        "step_seconds": [b - a for a, b in zip(outcome.ends, outcome.ends[1:], strict=False)],
        "seconds": seconds,
        "seconds_with_warmup": outcome.ends[-1] - outcome.ends[0],
        "tokens_per_second": sum(len(s.tokens) for s in timed) / seconds,
        "supervised_per_second": sum(s.learned for s in timed) / seconds,
        "groups_per_second": (plan.steps - plan.warmup) * plan.groups / seconds,
        "steps_per_second": (plan.steps - plan.warmup) / seconds,
        "peak_bytes": common.peak_memory(),
        "trainable": {name: list(tensor.shape) for name, tensor in sorted(outcome.final.items())},
    }
    job.with_suffix(".out").write_text(json.dumps(report))


class Arena:
    """Runs plans in child processes over one workload on disk."""

    def __init__(self, folder: Path, match: Match, options: argparse.Namespace) -> None:
        from bench import workload

        self.folder, self.match, self.options, self.count = folder, match, options, 0
        self.trials: list[Run] = []
        shape = workload.TINY if options.quick else workload.THIRTY_MILLION
        data = workload.write(folder, shape, match.method, count=max(match.steps, match.probe[0]) * match.groups, rank=options.rank)
        every = [s for group in data for s in group]
        self.facts = {
            "model": shape,
            "groups": len(data),
            "tokens_mean": sum(len(s.tokens) for s in every) / len(every),
            "learned_mean": sum(s.learned for s in every) / len(every),
            "longest": max(len(s.tokens) for s in every),
        }

    def plan(self, name: str, **settings: Any) -> Any:
        from bench.workload import Plan

        library = "hone" if name.startswith("hone") else "trl"
        settings["micro"] = min(settings.get("micro", Plan.micro), self.rows)
        shared = {"method": self.match.method, "groups": self.match.groups, "steps": self.match.steps, "warmup": self.match.warmup}
        return Plan(name=name, library=library, rank=self.options.rank, threads=self.options.threads, **shared, **settings)

    @property
    def rows(self) -> int:
        """Sequences of an optimiser step: no micro-batch can be larger."""
        from bench.workload import ANSWERS

        return self.match.groups * ANSWERS[self.match.method]

    def run(self, plan: Any, dtype: str) -> Run:
        self.count += 1
        job = self.folder / f"{self.count:03d}-{plan.name.replace(' ', '-')}-{dtype}"
        job.write_text(json.dumps(asdict(plan)))
        whole = common.in_child("bench.arena", job, plan.threads)
        report: Run = json.loads(job.with_suffix(".out").read_text())
        report |= {"dtype": dtype, "process_seconds": whole, "final": str(job.with_suffix(".safetensors"))}
        rate, peak = report["tokens_per_second"], report["peak_bytes"] / 2**20
        print(f"  {plan.name:14s} {dtype}  {rate:8.0f} tokens/s  {peak:6.0f} MiB  {whole:6.1f} s", flush=True)
        return report

    def fastest(self, plans: list[Any], dtype: str) -> Any:
        """The plan with the most tokens per second in a short trial."""
        plans = [plan for plan in plans if plan.micro <= self.rows]
        if len(plans) == 1 or self.options.quick:
            return plans[0]
        steps, warmup = self.match.probe
        rates = []
        for plan in plans:
            print(f"  trial: {choices(plan)}")
            report = self.run(replace(plan, steps=steps, warmup=warmup), dtype)
            rates.append(report["tokens_per_second"])
            self.trials.append(
                {"dtype": dtype, "settings": choices(plan), "tokens_per_second": rates[-1], "peak_bytes": report["peak_bytes"]}
            )
        return plans[rates.index(max(rates))]


def choices(plan: Any) -> str:
    """The settings that TRL is tuned by, in a line."""
    form = "bf16 autocast" if plan.autocast else "no autocast"
    adapter = "float32" if plan.wide_adapter else plan.weights
    layout = "padding-free" if plan.padding_free else "padded"
    return f"{plan.weights} weights, {form}, {adapter} adapter, {layout} micro-batches of {plan.micro}"


def compete(folder: Path, match: Match, options: argparse.Namespace) -> Run:
    """The whole benchmark; returns all there is to keep."""
    arena = Arena(folder, match, options)
    dtypes = ("fp32", "bf16") if options.dtype == "both" else (options.dtype,)
    reference = arena.run(arena.plan("TRL reference", micro=min(4, match.groups), quiet=True), "fp32")
    runs: list[Run] = []
    for dtype in dtypes:
        plans = match.contenders(arena, dtype)
        print(f"{dtype}, TRL tuned: {choices(plans[-1])}")
        for turn in range(1, match.rounds + 1):
            print(f"{dtype}, round {turn} of {match.rounds}")
            runs += [arena.run(plan, dtype) for plan in plans]
    found: list[gates.Gate] = []
    for run in runs:
        peers = [other for other in runs if other["dtype"] == run["dtype"] and other["plan"]["library"] == "trl"]
        found += gates.check(run, reference, peers)
    apart = {f"{r['plan']['name']} {r['dtype']}": weights_apart(r, reference) for r in runs}
    failed = {gate.contender for gate in found if not gate.passed}
    return {
        "machine": common.machine(),
        "workload": arena.facts,
        "sizes": {"method": match.method, "groups": match.groups, "steps": match.steps, "warmup": match.warmup, "rounds": match.rounds},
        "summary": summary(runs, failed),
        "gates": [asdict(gate) for gate in found],
        "final_adapter_away_from_reference": apart,
        "trials": arena.trials,
        "runs": [{key: value for key, value in run.items() if key not in ("final", "trainable")} for run in (reference, *runs)],
    }


def weights_apart(one: Run, other: Run) -> float:
    """Largest difference of any element of the final adapters."""
    from safetensors.torch import load_file

    ours, theirs = load_file(one["final"]), load_file(other["final"])
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def summary(runs: list[Run], failed: set[str]) -> list[Run]:
    """Median and range of each contender, and hone's ratios to the others, round by round."""
    out = []
    for dtype, name in dict.fromkeys((run["dtype"], run["plan"]["name"]) for run in runs):
        own = [run for run in runs if (run["dtype"], run["plan"]["name"]) == (dtype, name)]
        row: Run = {"dtype": dtype, "name": name, "failed": f"{name} {dtype}" in failed}
        for key in MEASURED:
            row[key] = common.spread(run[key] for run in own)
        hone = [run for run in runs if (run["dtype"], run["plan"]["name"]) == (dtype, "hone")]
        if row["name"] != "hone" and not row["failed"] and f"hone {dtype}" not in failed:
            row["hone_is_faster"] = common.spread(a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(hone, own, strict=True))
            row["hone_memory"] = common.spread(a["peak_bytes"] / b["peak_bytes"] for a, b in zip(hone, own, strict=True))
        out.append(row)
    return out


def show(rows: list[Run]) -> str:
    header = ("contender", "tokens/s", "range", "learned/s", "s per step", "process s", "peak MiB", "hone is faster", "hone's memory")
    return common.table(header, [_cells(row) for row in rows])


def _cells(row: Run) -> tuple[str, ...]:
    rate = row["tokens_per_second"]
    ratios = ["FAILED A GATE"] * 2 if row["failed"] else ["", ""]
    if "hone_is_faster" in row:
        faster, memory = row["hone_is_faster"], row["hone_memory"]
        ratios = [f"{faster['median']:.2f} x ({faster['low']:.2f}-{faster['high']:.2f})", f"{memory['median']:.2f} x"]
    return (
        f"{row['name']} {row['dtype']}",
        f"{rate['median']:.0f}",
        f"{rate['low']:.0f}-{rate['high']:.0f}",
        f"{row['supervised_per_second']['median']:.0f}",
        f"{1 / row['steps_per_second']['median']:.2f}",
        f"{row['process_seconds']['median']:.0f}",
        f"{row['peak_bytes']['median'] / 2**20:.0f}",
        *ratios,
    )


def settings(match: Match, doc: str) -> argparse.Namespace:
    """The command line that every benchmark of this kind has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{match.method}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=match.groups, help=f"groups of an optimiser step (default {match.groups})")
    parser.add_argument("--steps", type=int, default=match.steps, help=f"optimiser steps (default {match.steps})")
    parser.add_argument("--warmup", type=int, default=match.warmup, help=f"first steps that are not timed (default {match.warmup})")
    parser.add_argument("--rounds", type=int, default=match.rounds, help=f"interleaved rounds (default {match.rounds})")
    parser.add_argument("--trial", type=int, default=match.probe[0], help="steps with which the rival's settings are looked for")
    parser.add_argument("--dtype", choices=("both", "bf16", "fp32"), default="both")
    parser.add_argument("--budget", type=int, default=2048, help="hone's tokens of a micro-batch")
    parser.add_argument("--rank", type=int, default=16, help="of the LoRA")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny model and six steps: does it run?")
    parser.add_argument("--busy", action="store_true", help="measure although other programs are running")
    return parser.parse_args()


def main(match: Match, doc: str) -> None:
    """Wait for a quiet machine, let the contenders run, print the gates and the table, keep the raw figures."""
    options = settings(match, doc)
    load = common.idle(busy=options.busy)
    if not 0 <= options.warmup < options.steps:
        sys.exit("--warmup must be smaller than --steps")
    sizes = {
        "groups": options.groups,
        "steps": options.steps,
        "warmup": options.warmup,
        "rounds": options.rounds,
        "probe": (options.trial, min(options.trial - 1, max(1, options.trial // 3))),
    }
    if options.quick:
        sizes |= {"steps": 6, "warmup": 2, "rounds": 1}
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        result = compete(Path(folder), replace(match, **sizes), options)
    result |= {"load_average_before": load, "busy": options.busy, "minutes": (time.time() - started) / 60}
    print("\n".join(dict.fromkeys(str(gates.Gate(**gate)) for gate in result["gates"])))
    print(f"\n{show(result['summary'])}\n")
    cpu, versions = result["machine"]["lscpu"], result["machine"]["versions"]
    print(f"{cpu.get('Model name')}, {options.threads} threads, load before {load:.2f}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"raw figures: {common.save(f'{match.method}-quick' if options.quick else match.method, result)}")
    if any(not gate["passed"] for gate in result["gates"]):
        sys.exit(1)


if __name__ == "__main__":
    child(Path(sys.argv[sys.argv.index("--child") + 1]))
