"""Predicted against measured memory on the CPU: models x sequence x method x recompute, by the allocator's own trace.

Each case runs one optimiser step on prepared micro-batches, an evaluation, a generation, a save, a merge and a load. What is measured is
the largest sum of live allocations (torch's profiler reports every allocation of its CPU allocator) on top of the weights,
the optimiser's moments and the gradients that were there before. Interpreter, libraries and the scratch of matrix
libraries are not part of it; the growth of the resident size is written beside for those who want to see them.

    python -m bench.memory            all cases, the table, and bench/results/memory-DATE.json
    python -m bench.memory --quick    four cases
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.common import in_child, machine, peak_memory, save, table

MODELS = {
    "qwen3-5M": ("qwen3", 256, 5, 4, 2, 64, 768, 4096),
    "llama-12M": ("llama", 320, 6, 5, 5, 64, 864, 8192),
    "gpt2-16M": ("gpt2", 384, 6, 6, 6, 64, 1536, 12288),
}
"""Family, hidden size, layers, heads, key heads, head size, width of the feed-forward, vocabulary."""
LENGTHS = (128, 1024)
METHODS = ("lora", "full")
TOKENS = 1024
ANSWERS, ANSWER = 8, 96
LEARNED = 0.5


@dataclass
class Case:
    """One point of the grid, and where its result goes."""

    model: str
    length: int
    method: str
    recompute: bool
    out: str


def grid(quick: bool, folder: Path) -> list[Case]:
    cases = [
        Case(model, length, method, recompute, str(folder / f"{model}-{length}-{method}-{recompute}.out.json"))
        for model in MODELS
        for length in LENGTHS
        for method in METHODS
        for recompute in (False, True)
    ]
    return cases[:: len(cases) // 4] if quick else cases


def build(name: str) -> Any:
    """A random model of one of the shapes."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    family, hidden, layers, heads, key_heads, head, wide, vocabulary = MODELS[name]
    torch.manual_seed(0)
    if family == "gpt2":
        quiet = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2}
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_embd=hidden, n_layer=layers, n_head=heads, n_inner=wide, n_positions=4096, **quiet)
        )
    shape = {
        "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "head_dim": head, "intermediate_size": wide, "max_position_embeddings": 4096,
    }  # fmt: skip
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    return Qwen3ForCausalLM(Qwen3Config(**shape, tie_word_embeddings=True))


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Gives a function that tells, after the block, the largest sum of allocations inside it, in bytes."""
    from torch.profiler import ProfilerActivity, profile

    found: list[int] = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as tracer:
        yield lambda: found[0]
    now = most = 0
    events = [event for event in tracer.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    found.append(most)


def child(job: Path) -> None:
    """The cases of one process."""
    for case in json.loads(job.read_text()):
        one(Case(**case))


def one(case: Case) -> None:
    """Measure one case and predict it."""
    import torch

    from hone.data.batching import micro_batches
    from hone.models.kernels.fuse import fuse
    from hone.models.policy import Policy
    from hone.models.recompute import recompute_blocks
    from hone.objectives import OBJECTIVES
    from hone.rollout.sample import Sampler
    from hone.train.engine import Engine
    from hone.train.settings import OptimSettings
    from hone.tuning import METHODS as TUNINGS

    model = build(case.model)
    loading = _loading(model)
    fuse(model)
    tuning = TUNINGS[case.method]()
    tuning.attach(model, seed=0)
    policy = Policy.of(model, tuning)
    recompute_blocks(model, case.recompute)
    engine = Engine(policy, OptimSettings(learning_rate=1e-4), sampler=Sampler(model, _Words()).generate)
    batches, sft = micro_batches(_groups(case.length), 10**9), OBJECTIVES["sft"]
    model.train()
    tally = engine.forward_backward(batches, sft)
    engine.step(1e-4, engine.gradient_norm(tally))
    engine.forward_backward(batches, sft)
    weights = sum(p.nbytes for p in model.parameters())
    moments = sum(value.nbytes for state in engine.optimizer.state.values() for value in state.values())
    gradients = sum(master.grad.nbytes for master in engine.masters if master.grad is not None)
    with traced() as most:
        tally = engine.forward_backward(batches, sft)
    measured = {"load": loading, "training": weights + moments + gradients + most()}
    with traced() as most:
        engine.step(1e-4, engine.gradient_norm(tally))
    measured["optimiser"] = weights + moments + gradients + most()
    model.eval()
    with torch.no_grad(), traced() as most:
        for batch in batches:
            sft(policy.signals(batch, sft.needs))
    measured["evaluation"] = weights + moments + most()
    with traced() as most:
        engine.sample([[5 + i, 6, 7, 8] * 8 for i in range(ANSWERS)], max_new_tokens=ANSWER - 32, stop_ids=())
    measured["generation"] = weights + moments + most()
    with tempfile.TemporaryDirectory() as folder, traced() as most:
        tuning.save(model, Path(folder), base={"name": "none"})
    measured["save"] = weights + moments + most()
    with traced() as most:
        tuning.merge(model)
    if case.method == "lora":
        measured["merge"] = weights + most()
    result = {"measured": measured, "resident_peak_of_process": peak_memory(), "predicted": predicted(case, model, batches)}
    Path(case.out).write_text(json.dumps(result))


class _Words:
    """Decodes nothing: the sampler needs a tokenizer only for stop strings."""

    def decode(self, tokens: list[int], **_: Any) -> str:
        return ""


def _loading(model: Any) -> int:
    """The peak while the model is read from a folder."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with traced() as most:
            AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype)
    return most()


def _groups(length: int) -> list[Any]:
    from hone.core.types import Sequence

    weights = [0.0 if i < length * (1 - LEARNED) else 1.0 for i in range(length)]
    return [(Sequence([3 + (7 * i + row) % 500 for i in range(length)], weights),) for row in range(TOKENS // length)]


def predicted(case: Case, model: Any, batches: list[Any]) -> dict[str, int]:
    """The plan's figures for the same case, from the configuration alone."""
    from hone.plan.layers import adapters, largest, linears, total
    from hone.plan.memory import Work, memory
    from hone.plan.shapes import facts_of

    facts = facts_of(model.config.to_dict())
    layers = linears(facts)
    count = adapters(facts, {"method": case.method, "rank": 16, "targets": "all-linear"}, layers)
    assert count is not None
    tokens, reads = len(batches[0].tokens_T), len(batches[0].read_N)
    found = memory(
        Work(
            facts=facts, adapters=count, linear=total(layers), largest=largest(layers), tokens=tokens, reads=reads,
            eval_tokens=tokens, eval_reads=reads, recompute=case.recompute, samples=ANSWERS, sample_tokens=ANSWER,
        )
    )  # fmt: skip
    sizes = {phase.name: phase.total for phase in found.phases}
    return sizes | {"training": max(sizes["forward"], sizes["backward"])}


def report(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors by phase: mean of their sizes, the furthest over and the furthest under."""
    errors: dict[str, list[float]] = {}
    for result in results:
        result["error"] = {k: result["predicted"][k] / v - 1 for k, v in result["measured"].items()}
        peak = max(result["predicted"].values()) / max(result["measured"].values()) - 1
        for name, error in {**result["error"], "peak of the run": peak}.items():
            errors.setdefault(name, []).append(error)
    rows = {
        name: {"mean": sum(map(abs, each)) / len(each), "over": max(each), "under": min(each), "cases": len(each)}
        for name, each in errors.items()
    }
    cells = [(name, str(row["cases"]), *(f"{100 * row[key]:+.1f} %" for key in ("mean", "over", "under"))) for name, row in rows.items()]
    print(table(("phase", "cases", "mean |error|", "most over", "most under"), cells))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.child)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        cases = grid(arguments.quick, Path(folder))
        for i, (name, method) in enumerate(dict.fromkeys((case.model, case.method) for case in cases)):
            mine = [case for case in cases if (case.model, case.method) == (name, method)]
            job = Path(folder) / f"{i}.json"
            job.write_text(json.dumps(list(map(asdict, mine))))
            in_child("bench.memory", job, threads=1)
            results += [asdict(replace(case, out="")) | json.loads(Path(case.out).read_text()) for case in mine]
            print(f"{name} {method}: {len(mine)} cases", file=sys.stderr, flush=True)
    rows = report(results)
    print(f"raw figures: {save('memory', {'machine': machine(), 'summary': rows, 'cases': results}).name}")


if __name__ == "__main__":
    main()
