"""Supervised fine-tuning beside TRL's SFTTrainer: the same training, gated by its losses, timed in fresh processes.

`python -m bench.sft` takes about an hour on two idle cores; `--dtype bf16 --rounds 3` measures one type only, and
`--quick --busy` only shows that everything runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench import common, gates

Run = dict[str, Any]
RATES = ("tokens_per_second", "supervised_per_second", "samples_per_second", "steps_per_second")
MEASURED = (*RATES, "seconds", "seconds_with_warmup", "process_seconds", "peak_bytes")
PROBE = (8, 3)
"""Steps, and how many of them are warm-up, with which TRL's best settings are looked for."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    model: str
    steps: int
    warmup: int
    rounds: int
    rank: int = 16


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
    timed = data[plan.warmup * workload.SAMPLES_PER_STEP :]
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
        "samples_per_second": len(timed) / seconds,
        "steps_per_second": (plan.steps - plan.warmup) / seconds,
        "peak_bytes": common.peak_memory(),
        "trainable": {name: list(tensor.shape) for name, tensor in sorted(outcome.final.items())},
    }
    job.with_suffix(".out").write_text(json.dumps(report))


class Arena:
    """Runs plans in child processes over one workload on disk."""

    def __init__(self, folder: Path, sizes: Sizes, options: argparse.Namespace) -> None:
        from bench import workload

        self.folder, self.sizes, self.options, self.count = folder, sizes, options, 0
        self.trials: list[Run] = []
        shape = workload.TINY if sizes.model == "tiny" else workload.THIRTY_MILLION
        data = workload.write(folder, shape, count=max(sizes.steps, PROBE[0]) * workload.SAMPLES_PER_STEP, rank=sizes.rank)
        self.facts = {
            "model": shape,
            "samples": len(data),
            "tokens_mean": sum(len(s.tokens) for s in data) / len(data),
            "learned_mean": sum(s.learned for s in data) / len(data),
            "longest": max(len(s.tokens) for s in data),
        }

    def plan(self, name: str, **settings: Any) -> Any:
        from bench.workload import Plan

        library = "hone" if name == "hone" else "trl"
        shared = {"steps": self.sizes.steps, "warmup": self.sizes.warmup, "rank": self.sizes.rank, "threads": self.options.threads}
        return Plan(name=name, library=library, **shared, **settings)

    def run(self, plan: Any, dtype: str) -> Run:
        self.count += 1
        job = self.folder / f"{self.count:03d}-{plan.name.replace(' ', '-')}-{dtype}"
        job.write_text(json.dumps(asdict(plan)))
        whole = common.in_child("bench.sft", job, plan.threads)
        report: Run = json.loads(job.with_suffix(".out").read_text())
        report |= {"dtype": dtype, "process_seconds": whole, "final": str(job.with_suffix(".safetensors"))}
        rate, peak = report["tokens_per_second"], report["peak_bytes"] / 2**20
        print(f"  {plan.name:14s} {dtype}  {rate:8.0f} tokens/s  {peak:6.0f} MiB  {whole:6.1f} s", flush=True)
        return report

    def contenders(self, dtype: str) -> list[Any]:
        """hone, TRL as it comes, and TRL at its best."""
        half = dtype == "bf16"
        hone = self.plan("hone", weights="bfloat16" if half else "float32", budget=self.options.budget)
        default = self.plan("TRL default", autocast=half, recompute=True, micro=8)
        return [hone, default, self.tuned(dtype)]

    def tuned(self, dtype: str) -> Any:
        """TRL without recomputation and almost without padding or logs; type and micro-batch by trial."""
        plain = self.plan("TRL tuned", grouped=True, quiet=True, micro=4)
        if self.options.quick:
            return replace(plain, autocast=dtype == "bf16")
        forms = [plain]
        if dtype == "bf16":
            narrow = replace(plain, weights="bfloat16")
            forms = [replace(plain, autocast=True), replace(narrow, autocast=True), narrow, replace(narrow, wide_adapter=False)]
        best = self.fastest(forms, dtype)
        layouts = [replace(best, micro=2), replace(best, micro=8), replace(best, micro=16), replace(best, micro=2, padding_free=True)]
        return self.fastest([best, *layouts], dtype)

    def fastest(self, plans: list[Any], dtype: str) -> Any:
        """The plan with the most tokens per second in a short trial."""
        if len(plans) == 1:
            return plans[0]
        steps, warmup = PROBE
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


def summary(runs: list[Run], failed: set[str]) -> list[Run]:
    """Median and range of each contender, and hone's ratios to the others, round by round."""
    out = []
    for dtype, name in dict.fromkeys((run["dtype"], run["plan"]["name"]) for run in runs):
        own = [run for run in runs if (run["dtype"], run["plan"]["name"]) == (dtype, name)]
        row: Run = {"dtype": dtype, "name": name, "failed": f"{name} {dtype}" in failed}
        for key in MEASURED:
            row[key] = common.spread(run[key] for run in own)
        hone = [run for run in runs if (run["dtype"], run["plan"]["name"]) == (dtype, "hone")]
        if name != "hone" and not row["failed"] and f"hone {dtype}" not in failed:
            row["hone_is_faster"] = common.spread(a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(hone, own, strict=True))
            row["hone_memory"] = common.spread(a["peak_bytes"] / b["peak_bytes"] for a, b in zip(hone, own, strict=True))
        out.append(row)
    return out


def show(rows: list[Run]) -> str:
    header = ("contender", "tokens/s", "range", "learned/s", "samples/s", "process s", "peak MiB", "hone is faster", "hone's memory")
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
        f"{row['samples_per_second']['median']:.1f}",
        f"{row['process_seconds']['median']:.0f}",
        f"{row['peak_bytes']['median'] / 2**20:.0f}",
        *ratios,
    )


def weights_apart(one: Run, other: Run) -> float:
    """Largest difference of any element of the final adapters."""
    from safetensors.torch import load_file

    ours, theirs = load_file(one["final"]), load_file(other["final"])
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def compete(folder: Path, sizes: Sizes, options: argparse.Namespace) -> Run:
    """The whole benchmark; returns all there is to keep."""
    arena = Arena(folder, sizes, options)
    dtypes = ("fp32", "bf16") if options.dtype == "both" else (options.dtype,)
    print("reference: TRL in fp32")
    reference = arena.run(arena.plan("TRL reference", micro=4, quiet=True), "fp32")
    runs: list[Run] = []
    for dtype in dtypes:
        plans = arena.contenders(dtype)
        print(f"{dtype}, TRL tuned: {choices(plans[-1])}")
        for turn in range(1, sizes.rounds + 1):
            print(f"{dtype}, round {turn} of {sizes.rounds}")
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
        "sizes": asdict(sizes),
        "summary": summary(runs, failed),
        "gates": [asdict(gate) for gate in found],
        "final_adapter_away_from_reference": apart,
        "trials": arena.trials,
        "runs": [{key: value for key, value in run.items() if key not in ("final", "trainable")} for run in (reference, *runs)],
    }


def settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sft", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50, help="optimiser steps of 16 samples (default 50, the length of the gate)")
    parser.add_argument("--warmup", type=int, default=20, help="first steps that are not timed (default 20)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--dtype", choices=("both", "bf16", "fp32"), default="both")
    parser.add_argument("--budget", type=int, default=2048, help="hone's tokens of a micro-batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny model and six steps: does it run?")
    parser.add_argument("--busy", action="store_true", help="measure although other programs are running")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = settings()
    if options.child:
        return child(options.child)
    load = common.wait_until_idle(0 if options.busy else 180)
    if load >= common.IDLE_LOAD and not options.busy:
        sys.exit(f"the machine is busy (load average {load:.2f}, wanted below {common.IDLE_LOAD}); wait, or pass --busy")
    if not 0 <= options.warmup < options.steps:
        sys.exit("--warmup must be smaller than --steps")
    sizes = Sizes("30M", options.steps, options.warmup, options.rounds)
    if options.quick:
        sizes = Sizes("tiny", 6, 2, 1)
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        result = compete(Path(folder), sizes, options)
    result |= {"load_average_before": load, "busy": options.busy, "minutes": (time.time() - started) / 60}
    print("\n".join(dict.fromkeys(str(gates.Gate(**gate)) for gate in result["gates"])))
    print(f"\n{show(result['summary'])}\n")
    cpu, versions = result["machine"]["lscpu"], result["machine"]["versions"]
    print(f"{cpu.get('Model name')}, {options.threads} threads, load before {load:.2f}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(f"raw figures: {common.save('sft-quick' if options.quick else 'sft', result)}")
    if any(not gate["passed"] for gate in result["gates"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
