"""The update of GRPO beside TRL's GRPOTrainer: eight given answers of about 128 tokens to each prompt of 256, two prompts a step, LoRA.

Answers, advantages and the writer's log-probabilities are replayed, so only the update is measured. The loss is the mean over tokens
with a wide clip (DAPO, TRL's default); its denominator and clip are the same on both sides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.arena import Arena, Match, main


def contenders(arena: Arena, dtype: str) -> list[Any]:
    """hone, TRL as it comes, and TRL without recomputation, its micro-batch by trial."""
    half = dtype == "bf16"
    hone = arena.plan("hone", weights="bfloat16" if half else "float32", budget=arena.options.budget)
    default = arena.plan("TRL default", autocast=half, recompute=True, micro=8)
    plain = arena.plan("TRL tuned", autocast=half, quiet=True, micro=8)
    return [hone, default, arena.fastest([plain, replace(plain, micro=4), replace(plain, micro=16)], dtype)]


if __name__ == "__main__":
    main(Match("grpo", groups=2, contenders=contenders, steps=15, warmup=3), __doc__)
