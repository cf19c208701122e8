"""Tasks whose answers are a few labels: finding them in the data, hearing them in an answer, and F1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hone.eval.graders import normal

MOST_LABELS, LONGEST, FEWEST_EACH = 30, 40, 5
"""A set of labels: at most so many, each of at most so many characters, with on average at least so many rows."""

_LETTER = r"[^\W\u3400-\u9fff]"
"""Letters and digits that make longer words; Chinese does not put spaces between words."""


def label_set(expected: Sequence[str]) -> tuple[str, ...]:
    """The labels of a task, or nothing if its expected texts are not a few short ones that come again and again."""
    counts = Counter(normal(text) for text in expected)
    few = 2 <= len(counts) <= MOST_LABELS and len(expected) >= FEWEST_EACH * len(counts)
    return tuple(sorted(counts)) if few and all(0 < len(label) <= LONGEST for label in counts) else ()


def label_in(answer: str, labels: Sequence[str]) -> str | None:
    """The label that an answer gives: it is the label, or names exactly one of them. Case and a final full stop do not matter."""
    said = _plain(answer)
    named = [label for label in labels if re.search(f"(?<!{_LETTER}){re.escape(_plain(label))}(?!{_LETTER})", said)]
    exact = [label for label in labels if _plain(label) == said]
    # "very good" also names "good"
    longest = [one for one in named if not any(one != other and _plain(one) in _plain(other) for other in named)]
    return exact[0] if exact else longest[0] if len(longest) == 1 else None


def _plain(text: str) -> str:
    return normal(text).casefold().rstrip(".!。")


def codes(expected: Sequence[str], said: Sequence[str | None]) -> NDArray[np.int64]:
    """(n, 2): the number of the right label and of the given one; -1 is none of those that are right somewhere."""
    number: dict[str | None, int] = {label: i for i, label in enumerate(sorted({normal(text) for text in expected}))}
    return np.array([[number[normal(right)], number.get(given, -1)] for right, given in zip(expected, said, strict=True)])


def macro_f1(rows: NDArray[Any]) -> float:
    """Mean F1 over the labels that are right somewhere, of rows as `codes` makes them; 2 hits / (right + given)."""
    right, given = rows[:, 0], rows[:, 1]
    present = np.unique(right)
    hits = np.array([np.sum((right == label) & (given == label)) for label in present])
    total = np.array([np.sum(right == label) + np.sum(given == label) for label in present])
    return float(np.mean(2 * hits / total))
