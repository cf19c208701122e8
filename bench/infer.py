"""Writing text beside transformers' `generate`: the same greedy tokens, timed in fresh processes in interleaved rounds.

Every contender answers the same prompts with the same lengths, in fp32, with the weights of one checkpoint: one request at
a time ("one"), and 32 at once whose prompts and answers have unlike lengths ("many"). A contender whose tokens are not
those of the reference is not timed, but for llama.cpp, which computes in F16 and takes part, where it is installed, as the
peer to look up to. `python -m bench.infer` takes some minutes; `--quick --busy` only shows that it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

from bench import common

SEEDLING = common.ROOT / "hone" / "demo" / "seedling"
CONTENDERS = ("hone", "generate", "generate static")
LLAMA_CPP = "llama.cpp F16"
"""Takes part where llama-cpp-python is installed. It rounds weights and inputs to F16, so its answers need not be the reference's."""
Run = dict[str, Any]
Compete = Callable[[Path, argparse.Namespace], Run]


@dataclass(frozen=True)
class Job:
    """One run of one contender."""

    contender: str
    model: str
    shape: str
    threads: int
    quick: bool
    gguf: str
    """The same model as a GGUF file in F16, for llama.cpp."""


def workload(vocabulary: int, shape: str, quick: bool) -> list[tuple[list[int], int]]:
    """(prompt, tokens to write): 4 requests of 48 and 64 tokens, or 32 of log-normal lengths of means 48 and 48."""
    rng = random.Random(f"{shape}/{vocabulary}")
    scale = 0.1 if quick else 1.0

    def length(mean: float) -> int:
        drawn = rng.lognormvariate(-0.18, 0.6) if shape == "many" else 1.0
        return max(4, min(160, round(scale * mean * drawn)))

    counts = {"one": 4, "many": 32}
    return [([rng.randrange(3, vocabulary) for _ in range(length(48))], length(64 if shape == "one" else 48)) for _ in range(counts[shape])]


def child(file: Path) -> None:
    """One contender in this process: load, warm up, and answer."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    job = Job(**json.loads(file.read_text()))
    torch.set_num_threads(job.threads)
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32).eval()
    requests = workload(model.config.vocab_size, job.shape, job.quick)
    contenders = {"hone": _hone, "generate": plain, "generate static": _static, "generate_batch": batched}
    answer = _llama_cpp(job) if job.contender == LLAMA_CPP else contenders[job.contender](model)
    warm = [([5, 6, 7 + i], 4) for i in range(1 if job.shape == "one" else len(requests))]
    groups = [[request] for request in requests] if job.shape == "one" else [requests]
    answer(warm)
    written, seconds = list[list[int]](), list[float]()
    began = time.process_time()
    for group in groups:
        started = time.perf_counter()
        written += answer(group)
        seconds.append(time.perf_counter() - started)
    tokens, cpu = sum(limit for _, limit in requests), time.process_time() - began
    report = {"job": asdict(job), "tokens": written, "seconds": seconds, "tokens_per_second": tokens / sum(seconds)}
    report["cpu_seconds"] = cpu
    file.with_suffix(".out").write_text(json.dumps(report | {"peak_bytes": common.peak_memory()}))


def _hone(model: Any) -> Any:
    """The server's own way: a batch that requests enter with limits of their own, and weights that do not move."""
    from collections import deque

    from hone.models.decode import KVCache
    from hone.models.kernels.fuse import fuse
    from hone.rollout.answer import Request, Stops
    from hone.rollout.batch import Batch
    from hone.rollout.sample import Sampler
    from hone.rollout.warp import Sampling

    fuse(model)
    sampler = Sampler(model, None, reuse=True)
    assert sampler.fit.quick, "the C function does not write here"

    def answer(requests: list[tuple[list[int], int]]) -> list[list[int]]:
        made = [Request(i, prompt, limit, Stops(frozenset(), (), None), Sampling()) for i, (prompt, limit) in enumerate(requests)]
        waiting = deque(sorted(made, key=lambda request: -len(request.prompt)))
        with sampler.reading() as read:
            batch = Batch(read, KVCache(len(requests), max(len(prompt) + limit for prompt, limit in requests)))
            while waiting or batch.active:
                batch.admit(waiting)
                batch.step()
        return [request.tokens for request in made]

    return answer


def plain(model: Any, **options: Any) -> Any:
    """Prompts padded on the left; the batch runs to its longest answer, and each is cut to its own length."""
    import torch

    def answer(requests: list[tuple[list[int], int]]) -> list[list[int]]:
        width, longest = max(len(prompt) for prompt, _ in requests), max(limit for _, limit in requests)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _ in requests])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in requests])
        how = {"max_new_tokens": longest, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, **how)
        return [row[width : width + limit] for row, (_, limit) in zip(out.tolist(), requests, strict=True)]

    return answer


def _static(model: Any) -> Any:
    return plain(model, cache_implementation="static")


def batched(model: Any) -> Any:
    """transformers' continuous batching."""
    from transformers import GenerationConfig

    def answer(requests: list[tuple[list[int], int]]) -> list[list[int]]:
        how = GenerationConfig(max_new_tokens=max(limit for _, limit in requests), do_sample=False, eos_token_id=-1, pad_token_id=0)
        out = model.generate_batch([prompt for prompt, _ in requests], generation_config=how, progress_bar=False)
        rows = sorted(out.values(), key=lambda each: int(str(each.request_id).rpartition("_")[2]))
        return [row.generated_tokens[:limit] for row, (_, limit) in zip(rows, requests, strict=True)]

    return answer


def _llama_cpp(job: Job) -> Any:
    """llama.cpp through its own batches of sequences, greedy by numpy."""
    import llama_cpp
    import numpy

    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(job.gguf.encode(), llama_cpp.llama_model_default_params())
    how = llama_cpp.llama_context_default_params()
    how.n_ctx, how.n_batch, how.n_ubatch, how.n_seq_max, how.kv_unified = 32 * 320, 8192, 512, 32, True
    how.n_threads = how.n_threads_batch = job.threads
    context = llama_cpp.llama_init_from_model(model, how)
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(8192, 0, 1)

    def feed(rows: list[tuple[int, list[int], int]]) -> list[int]:
        """(sequence, new tokens, their first position) of every row; the likeliest next tokens."""
        count, last = 0, []
        for row, tokens, start in rows:
            for i, token in enumerate(tokens):
                batch.token[count], batch.pos[count], batch.n_seq_id[count], batch.seq_id[count][0] = token, start + i, 1, row
                batch.logits[count] = i == len(tokens) - 1
                count += 1
            last.append(count - 1)
        batch.n_tokens = count
        assert llama_cpp.llama_decode(context, batch) == 0
        return [int(numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, at), (size,)).argmax()) for at in last]

    def answer(requests: list[tuple[list[int], int]]) -> list[list[int]]:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        firsts = feed([(row, prompt, 0) for row, (prompt, _) in enumerate(requests)])
        written = [[first] for first in firsts]
        while rows := [row for row, (_, limit) in enumerate(requests) if len(written[row]) < limit]:
            news = feed([(row, written[row][-1:], len(requests[row][0]) + len(written[row]) - 1) for row in rows])
            for row, new in zip(rows, news, strict=True):
                written[row].append(new)
        return written

    return answer


def gguf(model: Path, file: Path) -> str:
    """A model as a GGUF file in F16, without a tokenizer."""
    from transformers import AutoConfig

    from hone.export.gguf.families import family_of
    from hone.export.gguf.types import TYPES
    from hone.export.gguf.write import Content, plan, write
    from hone.export.tensors import StoredWeights

    config, weights = AutoConfig.from_pretrained(model).to_dict(), StoredWeights(model)
    family = family_of(config)
    planned = plan(weights, family, config, "F16", config["num_hidden_layers"])
    keys = {"general.file_type": TYPES["F16"].file_type, "tokenizer.ggml.model": "none"}
    keys |= {f"{family.arch}.{key}": value for key, value in family.metadata(config).items()}
    write(file, Content(family, config, keys, planned, weights), tell=lambda line: None)
    return str(file)


def models(folder: Path, names: list[str]) -> dict[str, str]:
    """The benchmark's 30 M model, saved in bf16 as models are, and the seedling."""
    import torch

    from bench import workload as sizes

    found = {"seedling": str(SEEDLING)}
    if "30M" in names:
        sizes.build(sizes.THIRTY_MILLION).to(torch.bfloat16).save_pretrained(folder / "30M")
        found["30M"] = str(folder / "30M")
    return {name: found[name] for name in names}


def agreement(run: Run, reference: Run) -> float:
    """Share of answers that are the reference's, token for token."""
    return sum(a == b for a, b in zip(run["tokens"], reference["tokens"], strict=True)) / len(reference["tokens"])


def compete(folder: Path, options: argparse.Namespace) -> Run:
    """All rounds over all models and shapes."""
    places = models(folder, options.models)
    peer = importlib.util.find_spec("llama_cpp") is not None
    version = metadata.version("llama_cpp_python") if peer else "not installed"
    print(f"  llama.cpp (llama-cpp-python): {version}{'' if peer else ', so it does not take part'}", flush=True)
    files = {name: gguf(Path(place), folder / f"{name}.gguf") if peer else "" for name, place in places.items()}
    jobs = [
        (turn, name, Job(contender, place, shape, options.threads, options.quick or contender == "generate_batch", files[name]))
        for turn, (name, place), shape in product(range(options.rounds), places.items(), ("one", "many"))
        for contender in (*CONTENDERS, *([LLAMA_CPP] if peer else []), *(["generate_batch"] if options.batch and not turn else []))
    ]
    runs = [_run(folder / f"{turn}-{name}-{job.shape}-{job.contender.replace(' ', '-')}.job", name, job) for turn, name, job in jobs]
    about = {"machine": common.machine(), "threads": options.threads, "llama_cpp_python": version}
    return about | {"summary": summary(runs), "runs": [_short(run) for run in runs]}


def _run(file: Path, name: str, job: Job) -> Run:
    file.write_text(json.dumps(asdict(job)))
    whole = common.in_child("bench.infer", file, job.threads)
    run: Run = json.loads(file.with_suffix(".out").read_text()) | {"model": name, "process_seconds": whole}
    run["job"] |= {"model": name, "gguf": Path(job.gguf).name}  # raw figures hold no paths
    print(f"  {name:9s} {job.shape:5s} {job.contender:16s} {run['tokens_per_second']:8.1f} tokens/s", flush=True)
    return run


def summary(runs: list[Run]) -> list[Run]:
    """Median rates, whether the tokens are `generate`'s, and how many times faster hone is, round by round."""
    rows = []
    for model, shape, contender in dict.fromkeys((run["model"], run["job"]["shape"], run["job"]["contender"]) for run in runs):

        def of(wanted: str, model: str = model, shape: str = shape) -> list[Run]:
            return [r for r in runs if (r["model"], r["job"]["shape"], r["job"]["contender"]) == (model, shape, wanted)]

        own, hone, reference = of(contender), of("hone"), of("generate")
        row: Run = {"model": model, "shape": shape, "contender": contender, "short_trial": contender == "generate_batch"}
        row["tokens_per_second"] = common.spread(run["tokens_per_second"] for run in own)
        row["cpu_seconds"] = common.spread(run["cpu_seconds"] for run in own)
        row["peak_bytes"] = common.spread(run["peak_bytes"] for run in own)
        if not row["short_trial"]:
            row["same_answers"] = min(agreement(run, base) for run, base in zip(own, reference, strict=True))
            row["hone_is_faster"] = common.spread(a["tokens_per_second"] / b["tokens_per_second"] for a, b in zip(hone, own, strict=True))
        rows.append(row)
    return rows


def _short(run: Run) -> Run:
    return {key: value for key, value in run.items() if key != "tokens"}


def show(rows: list[Run]) -> str:
    header = ("contender", "tokens/s", "range", "CPU s", "peak MiB", "same answers", "hone is faster")
    return common.table(header, [cells(row, f"{row['model']} {row['shape']} {row['contender']}") for row in rows])


def cells(row: Run, name: str) -> tuple[str, ...]:
    """A row of a table under its name."""
    rate, faster = row["tokens_per_second"], row.get("hone_is_faster")
    return (
        name,
        f"{rate['median']:.0f}",
        f"{rate['low']:.0f}-{rate['high']:.0f}",
        f"{row['cpu_seconds']['median']:.2f}",
        f"{row['peak_bytes']['median'] / 2**20:.0f}",
        "short trial" if row.get("short_trial") else f"{row['same_answers']:.0%}",
        f"{faster['median']:.2f} x ({faster['low']:.2f}-{faster['high']:.2f})" if faster and row["contender"] != "hone" else "",
    )


def arguments(name: str, about: str | None, *, batch: str, quick: str) -> argparse.Namespace:
    """The command line of a benchmark of writing."""
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=("30M", "seedling"), default=["30M", "seedling"])
    parser.add_argument("--batch", action="store_true", help=batch)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--busy", action="store_true", help="measure although other programs are running")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(name: str, options: argparse.Namespace, compete: Compete, show: Callable[[list[Run]], str]) -> list[Run]:
    """Run a match on an idle machine, show and save it. Exits where hone's answers are not those of `generate`."""
    load, started = common.idle(busy=options.busy), time.time()
    with tempfile.TemporaryDirectory() as folder:
        result = compete(Path(folder), options)
    result |= {"load_average_before": load, "busy": options.busy, "minutes": (time.time() - started) / 60}
    rows: list[Run] = result["summary"]
    print(f"\n{show(rows)}\n")
    print(f"raw figures: {common.save(f'{name}-quick' if options.quick else name, result)}")
    if any(row.get("same_answers", 1.0) < 1 for row in rows if row["contender"] == "hone"):
        sys.exit("hone's greedy answers are not those of generate: these figures do not count")
    return rows


def main() -> None:
    batch, quick = "a short trial of generate_batch as well; it takes a minute", "a tenth of the lengths: does it run?"
    options = arguments("infer", __doc__, batch=batch, quick=quick)
    if options.child:
        return child(options.child)
    measured("infer", options, compete, show)


if __name__ == "__main__":
    main()
