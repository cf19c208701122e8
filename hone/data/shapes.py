"""What an objective wants to compare, and whether a row has it: pairs, labels, steps, classes or numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from hone.core.errors import HoneError
from hone.core.types import Conversation, Example, Shape
from hone.data.formats import STEPS, WANTED
from hone.data.reading import Reading
from hone.data.settings import DataSettings

SAMPLE = 50
"""Rows of each source that are looked at before the model is loaded."""
NEEDED: Mapping[Shape, str] = {
    "single": "a wanted answer",
    "pair": "two answers to compare",
    "label": "a label of true or false",
    "steps": "steps with a label each",
    "class": "a single text and its class",
    "number": "a single text and a number",
}
USUAL: Mapping[Shape, str] = {"steps": "prm", "pair": "dpo or rm", "label": "kto", "single": "sft"}
"""Objectives that fit a shape, the most telling shape first."""


def wanted(example: Example, shape: Shape) -> tuple[Conversation, ...] | HoneError:
    """The conversations of a row that an objective of this shape compares (none for raw text), or D036 saying what it lacks."""
    if has(example, shape):
        pair = shape == "pair" or (shape == "label" and WANTED not in example.columns)
        return example.conversations if shape == "any" or pair else example.conversations[:1]
    what = f"the objective needs {NEEDED[shape]}, and the row has none"
    return HoneError("D036", what, where=str(example.origin), fix="choose another objective, or other data")


def has(example: Example, shape: Shape) -> bool:
    """Whether a row is of a shape. A pair is also two labelled answers."""
    judged, count = isinstance(example.columns.get(WANTED), bool), len(example.conversations)
    if shape in ("class", "number"):
        single = count == 1 and len([one for one in example.conversations[0] if one.role == "assistant"]) == 1
        return single and not judged and (shape == "class" or number_of(example) is not None)
    return {
        "any": True,
        "single": example.columns.get(WANTED) is not False,
        "pair": count == 2,
        "label": (judged and count == 1) or count == 2,
        "steps": STEPS in example.columns,
    }[shape]


def number_of(example: Example) -> float | None:
    """The answer of a row as a number, if it is one."""
    try:
        return float(example.conversations[0][-1].content)
    except ValueError:
        return None


def labels_of(example: Example) -> tuple[float, ...]:
    """1 for each wanted answer of a row and 0 for each unwanted one."""
    return (float(example.columns[WANTED]),) if WANTED in example.columns else (1.0, 0.0)


def margin_of(columns: Mapping[str, Any]) -> float:
    """By how much the better answer is better, where the row says so in a column `margin`; else 0."""
    value = columns.get("margin", 0.0)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def check_shape(settings: DataSettings, shape: Shape, *, objective: str) -> None:
    """Look at the first rows of every source, before any model is loaded. Raises P004 where none is of the shape."""
    for source in settings.sources:
        reading = Reading.of(settings)
        first = [outcome.example for outcome in islice(reading.source(source.path), SAMPLE) if outcome.example is not None]
        if first and not any(has(example, shape) for example in first):
            raise _misfit(first, shape, objective, source.path, next(iter(reading.layouts.values())).format.name)


def _misfit(first: Sequence[Example], shape: Shape, objective: str, where: str, format: str) -> HoneError:
    kinds = Counter(next(kind for kind in USUAL if has(example, kind) or kind == "single") for example in first)
    fits = USUAL[kinds.most_common(1)[0][0]].split()[0]
    what = f"{objective} needs {NEEDED[shape]}, and these rows (format {format}) have none"
    return HoneError("P004", what, where=where, fix=f"`hone train {fits}` fits this data; or give {objective} other data")
