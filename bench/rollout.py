"""Rollouts beside transformers' `generate` and `generate_batch`: 64 prompts, 128 new tokens each, greedy, fp32, with live weights.

hone writes as it does in training: with weights that may move at the next step, so nothing is kept between calls. The prompts have
unlike lengths, as prompts do. Fresh processes, interleaved rounds, medians; a contender whose tokens are not those of `generate` fails
the gate and does not count. `python -m bench.rollout` takes some minutes; `--quick --busy` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import random
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
    batch = "generate_batch as well, in one round: without a GPU it takes many minutes"
    options = infer.arguments("rollout", __doc__, batch=batch, quick="eight prompts, twelve tokens: does it run?")
    if options.child:
        return child(options.child)
    rows = infer.measured("rollout", options, compete, show)
    against = [row for row in rows if row["contender"] == "generate"]
    print("; ".join(f"{row['model']}: {row['hone_is_faster']['median']:.1f} x generate (wanted: {GOAL:g})" for row in against))


if __name__ == "__main__":
    main()
