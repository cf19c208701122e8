"""Rollouts beside transformers' `generate` and `generate_batch`: 64 prompts, 128 new tokens each, greedy, fp32, with live weights.

hone writes as it does in training: with weights that may move at the next step, so nothing is kept between calls. The prompts have
unlike lengths, as prompts do. Fresh processes, interleaved rounds, medians; a contender whose tokens are not those of `generate` fails
the gate and does not count. `python -m bench.rollout` takes some minutes; `--quick --busy` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from bench import common, infer

CONTENDERS = ("hone", "generate", "generate_batch")
PROMPTS, NEW = 64, 128
GOAL = 3.0
Requests = list[tuple[list[int], int]]


def workload(vocabulary: int, quick: bool) -> Requests:
    """Prompts of 24 to 72 tokens, each with the number of tokens to write."""
    rng = random.Random(f"rollout/{vocabulary}")
    count, new = (8, 12) if quick else (PROMPTS, NEW)
    return [([rng.randrange(3, vocabulary) for _ in range(rng.randint(24, 72))], new) for _ in range(count)]


def live(model: Any) -> Callable[[Requests], list[list[int]]]:
    """The sampler of a run."""
    from transformers import AutoTokenizer

    from hone.models.kernels.fuse import fuse
    from hone.rollout.sample import Sampler

    fuse(model)
    sampler = Sampler(model, AutoTokenizer.from_pretrained(infer.SEEDLING))

    def answer(requests: Requests) -> list[list[int]]:
        longest = max(limit for _, limit in requests)
        return [found.tokens for found in sampler.generate([prompt for prompt, _ in requests], max_new_tokens=longest)]

    return answer


def child(file: Path) -> None:
    """One contender in this process: load, warm up, and write the rollout twice; the second counts, as in a run of many."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    job = infer.Job(**json.loads(file.read_text()))
    torch.set_num_threads(job.threads)
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32).eval()
    requests = workload(model.config.vocab_size, job.quick)
    answer = {"hone": live, "generate": infer.plain, "generate_batch": infer.batched}[job.contender](model)
    answer([(prompt, 4) for prompt, _ in requests])
    began, started = time.process_time(), time.perf_counter()
    written = answer(requests)
    seconds, cpu = time.perf_counter() - started, time.process_time() - began
    report = {"job": asdict(job), "tokens": written, "seconds": [seconds], "cpu_seconds": cpu, "peak_bytes": common.peak_memory()}
    file.with_suffix(".out").write_text(json.dumps(report | {"tokens_per_second": sum(map(len, written)) / seconds}))


def compete(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds over all models; `generate_batch` once, where it is asked for."""
    places = infer.models(folder, options.models)
    runs = []
    for turn, (name, place) in product(range(options.rounds), places.items()):
        for contender in CONTENDERS if options.batch and not turn else CONTENDERS[:2]:
            file = folder / f"{turn}-{name}-{contender}"
            file.write_text(json.dumps(asdict(infer.Job(contender, place, "rollout", options.threads, options.quick, ""))))
            whole = common.in_child("bench.rollout", file, options.threads)
            run = json.loads(file.with_suffix(".out").read_text()) | {"model": name, "process_seconds": whole}
            run["job"] |= {"model": name}
            print(f"  {name:9s} {contender:16s} {run['tokens_per_second']:8.1f} tokens/s", flush=True)
            runs.append(run)
    short = [{key: value for key, value in run.items() if key != "tokens"} for run in runs]
    return {"machine": common.machine(), "threads": options.threads, "summary": summary(runs), "runs": short}


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Median rates, the share of answers that are `generate`'s token for token, and how many times faster hone is, round by round."""
    rows = []
    for model, contender in dict.fromkeys((run["model"], run["job"]["contender"]) for run in runs):

        def of(wanted: str, model: str = model) -> list[dict[str, Any]]:
            return [run for run in runs if (run["model"], run["job"]["contender"]) == (model, wanted)]

        own, hone, reference = of(contender), of("hone"), of("generate")
        rows.append({
            "model": model, "contender": contender,
            "tokens_per_second": common.spread(run["tokens_per_second"] for run in own),
            "cpu_seconds": common.spread(run["cpu_seconds"] for run in own),
            "peak_bytes": common.spread(run["peak_bytes"] for run in own),
            "same_answers": min(infer.agreement(run, base) for run, base in zip(own, reference, strict=False)),
            "hone_is_faster": common.spread(a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(hone, own, strict=False)),
        })  # fmt: skip
    return rows


def show(rows: list[dict[str, Any]]) -> str:
    header = ("contender", "tokens/s", "range", "CPU s", "peak MiB", "same answers", "hone is faster")
    return common.table(header, [infer.cells(row, f"{row['model']} {row['contender']}") for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.rollout", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=("30M", "seedling"), default=["30M", "seedling"])
    parser.add_argument("--batch", action="store_true", help="generate_batch as well, in one round: without a GPU it takes many minutes")
    parser.add_argument("--quick", action="store_true", help="eight prompts, twelve tokens: does it run?")
    parser.add_argument("--busy", action="store_true", help="measure although other programs are running")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    load = common.wait_until_idle(0 if options.busy else 180)
    if load >= common.IDLE_LOAD and not options.busy:
        sys.exit(f"the machine is busy (load average {load:.2f}, wanted below {common.IDLE_LOAD}); wait, or pass --busy")
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        result = compete(Path(folder), options)
    result |= {"load_average_before": load, "busy": options.busy, "minutes": (time.time() - started) / 60}
    print(f"\n{show(result['summary'])}\n")
    print(f"raw figures: {common.save('rollout-quick' if options.quick else 'rollout', result)}")
    against = [row for row in result["summary"] if row["contender"] == "generate"]
    if any(row["same_answers"] < 1 for row in result["summary"] if row["contender"] == "hone"):
        sys.exit("hone's greedy answers are not those of generate: these figures do not count")
    print("; ".join(f"{row['model']}: {row['hone_is_faster']['median']:.1f} x generate (wanted: {GOAL:g})" for row in against))


if __name__ == "__main__":
    main()
