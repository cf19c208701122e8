"""What an adviser must know of data and model, looked up without torch: rows, repeats, empty answers, lengths, scripts, size."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from hone.core.types import Example
from hone.data.reading import Reading
from hone.data.settings import Source
from hone.data.split import example_key
from hone.data.unknown import texts_of
from hone.plan.counsel import Matter
from hone.plan.kinds import identity
from hone.plan.machines import Machine
from hone.recipe.forecast import model_folder

LOOKED_AT = 20_000
"""Rows whose text is looked at; all are counted."""
LETTERS = 4.0
"""Letters of a token, where no tokenizer is there to count."""


def matter_of(machine: Machine, *, model: str | None, data: str | None, goal: str, rows: int | None, quantiser: bool) -> Matter:
    """Everything that can be known. Raises the D codes for data that cannot be read, the M codes for a model."""
    known: dict[str, Any] = {"rows": rows, "goal": goal, "quantiser": quantiser}
    if model is not None:
        found = identity(model, model_folder(model, None))
        known |= {"hidden": found.facts.hidden, "parameters": found.facts.parameters, "kind": found.kind, "has_template": found.template}
    if data is not None:
        known |= _of_data(data)
    return Matter(machine=machine, **known)


def _of_data(path: str) -> dict[str, Any]:
    reading = Reading()
    outcomes = reading.sources([Source(path=path)], seed=0)
    examples = [outcome.example for outcome in islice(outcomes, LOOKED_AT) if outcome.example is not None]
    rows = len(examples) + sum(outcome.example is not None for outcome in outcomes)
    keys = [example_key(example) for example in examples]
    lengths = sorted(sum(map(len, texts_of(example))) for example in examples) or [0]
    count = max(1, len(examples))
    return {
        "rows": rows,
        "duplicates": 1 - len(set(keys)) / count,
        "empty": sum(_empty(example) for example in examples) / count,
        "median": round(lengths[len(lengths) // 2] / LETTERS),
        "longest": round(lengths[-1] / LETTERS),
        "languages": scripts(text for example in examples[:2000] for text in texts_of(example)),
        "turns": sum(len(said) for example in examples for said in example.conversations[:1]) / count,
        "pairs": sum(len(example.conversations) > 1 for example in examples) > count / 2,
    }


def _empty(example: Example) -> bool:
    """Whether an answer says nothing."""
    return any(one.role == "assistant" and not one.content.strip() and not one.tool_calls for said in example.conversations for one in said)


def scripts(texts: Iterable[str]) -> dict[str, float]:
    """Share of the letters in each script, named as Unicode names them, the commonest five."""
    seen: Counter[str] = Counter()
    for text in texts:
        for letter in text[:400]:
            if letter.isalpha():
                name = "Latin" if letter.isascii() else unicodedata.name(letter, "UNKNOWN").split()[0].title()
                seen["Chinese" if name == "Cjk" else name] += 1
    total = max(1, seen.total())
    return {name: count / total for name, count in seen.most_common(5)}
