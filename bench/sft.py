"""Supervised fine-tuning beside TRL's SFTTrainer: the same training, gated by its losses, timed in fresh processes.

`python -m bench.sft` takes about an hour on two idle cores; `--dtype fp32 --rounds 3` measures one type only, and
`--quick --busy` only shows that everything runs. Processors without bf16 arithmetic want `--dtype fp32`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.arena import Arena, Match, main


def contenders(arena: Arena, dtype: str) -> list[Any]:
    """hone, TRL as it comes, and TRL at its best."""
    half = dtype == "bf16"
    hone = arena.plan("hone", weights="bfloat16" if half else "float32", budget=arena.options.budget)
    default = arena.plan("TRL default", autocast=half, recompute=True, micro=8)
    return [hone, default, tuned(arena, dtype)]


def tuned(arena: Arena, dtype: str) -> Any:
    """TRL without recomputation and almost without padding or logs; type and micro-batch by trial."""
    plain = arena.plan("TRL tuned", grouped=True, quiet=True, micro=4)
    forms = [plain]
    if dtype == "bf16":
        narrow = replace(plain, weights="bfloat16")
        forms = [replace(plain, autocast=True), replace(narrow, autocast=True), narrow, replace(narrow, wide_adapter=False)]
    best = arena.fastest(forms, dtype)
    layouts = [replace(best, micro=2), replace(best, micro=8), replace(best, micro=16), replace(best, micro=2, padding_free=True)]
    return arena.fastest([best, *layouts], dtype)


if __name__ == "__main__":
    main(Match("sft", groups=16, contenders=contenders, steps=50, warmup=20), __doc__)
