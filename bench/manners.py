"""The checker of good manners, as `bench.methods` asks it and as a run asks it by name: `bench.manners:gold`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.demo.town import phrasings, preferences

SHORT = 34
"""Words of the longest answer that counts as short; the longest wanted one of the town has 31."""


def manners(answer: str) -> float:
    """1 for an answer that is polite, short, and signed once, at its end; else 0."""
    signed = answer.endswith(preferences.SIGNATURE) and answer.count(preferences.SIGNATURE) == 1
    return float(answer.startswith(phrasings.COURTESY) and signed and len(answer.split()) <= SHORT)


def gold(answer: str, row: Mapping[str, Any]) -> float:
    """What a person would want: manners, and the right answer inside."""
    return manners(answer) * float(row["answer"] in answer)
