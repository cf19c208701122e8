"""Whether an answer says the same as the expected mathematics, however either is written (extra: rl)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from hone.core.errors import HoneError
from hone.rollout.rewards.base import Reward, Tools, expected, kind
from hone.rollout.rewards.worker import guarded


@kind
def maths(tools: Tools, *, column: str = "answer") -> Reward:
    """1 where the last expression of the answer equals the row's expected one (LaTeX, fractions, sets ...), by math-verify; else 0."""
    if find_spec("math_verify") is None:
        raise HoneError("C062", "the reward 'maths' needs the package math-verify", fix="pip install 'hone-llm[rl]'")
    return guarded("hone.rollout.rewards.maths:equal", tools, {"column": column})


def equal(answer: str, row: dict[str, Any], *, column: str) -> float:
    """Runs in a process of its own: simplifying can take for ever, and math-verify's alarm needs the main thread."""
    from math_verify import parse, verify

    wanted = expected(row, column)
    gold = parse(wanted) or parse(f"${wanted}$")
    if not gold:
        raise ValueError(f"there is no mathematics in the expected answer {wanted!r:.60}")
    return float(verify(gold, parse(answer)))
