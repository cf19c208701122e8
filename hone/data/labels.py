"""Recognises data whose answers are a few labels, and counts them."""

from __future__ import annotations

from collections import Counter

from hone.core.types import Example
from hone.data.formats import WANTED

SHORT = 40
"""Characters of the longest answer that may be a label."""
USES = 5
"""Rows that a label has on average, in data that is about labels."""


def label_of(example: Example) -> str | None:
    """Whether a judged answer is wanted; else the answer of a single exchange, if it is as short as labels are."""
    if WANTED in example.columns:
        return "wanted" if example.columns[WANTED] else "unwanted"
    if len(example.conversations) != 1:
        return None
    said = [one for one in example.conversations[0] if one.role != "system"]
    return said[1].content if len(said) == 2 and len(said[1].content) <= SHORT else None


def distribution(labels: Counter[str], rows: int) -> Counter[str]:
    """Label -> rows, the commonest first; empty where the answers are not labels. `rows` is how many were looked at."""
    is_task = labels.total() == rows and USES * len(labels) <= rows
    return Counter(dict(labels.most_common())) if is_task else Counter()
