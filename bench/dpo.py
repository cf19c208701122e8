"""Preference optimisation beside TRL's DPOTrainer: pairs of 512 tokens of prompt and about 128 of answer, LoRA, two pairs a step.

TRL as it comes recomputes activations and asks the reference at every step; tuned, it does neither. hone is measured both
ways too: with the reference computed beside each step, and once beforehand. What is computed beforehand is outside the clock.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.arena import Arena, Match, main


def contenders(arena: Arena, dtype: str) -> list[Any]:
    """hone with a cached and with a live reference, TRL as it comes, and TRL at its best."""
    half = dtype == "bf16"
    hone = arena.plan("hone", weights="bfloat16" if half else "float32", budget=arena.options.budget, cached=True)
    live = replace(hone, name="hone, live reference", cached=False)
    default = arena.plan("TRL default", autocast=half, recompute=True, micro=2)
    return [hone, live, default, tuned(arena, dtype)]


def tuned(arena: Arena, dtype: str) -> Any:
    """TRL without recomputation, with the reference's log-probabilities computed once; type and micro-batch by trial."""
    plain = arena.plan("TRL tuned", quiet=True, micro=2, cached=True)
    forms = [plain]
    if dtype == "bf16":
        narrow = replace(plain, weights="bfloat16")
        forms = [replace(plain, autocast=True), replace(narrow, autocast=True), narrow, replace(narrow, wide_adapter=False)]
    best = arena.fastest(forms, dtype)
    return arena.fastest([best, replace(best, micro=1)], dtype)


if __name__ == "__main__":
    main(Match("dpo", groups=2, contenders=contenders, steps=20, warmup=5, probe=(4, 1)), __doc__)
