"""Graders: from an answer and the expected text to a score. A new one is one function, here or in a file of the user's."""

from __future__ import annotations

import inspect
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from hone.core.errors import HoneError
from hone.core.functions import function_at
from hone.core.registry import Registry

Grader = Callable[[str, str, Mapping[str, Any]], float]
"""(answer, expected, the row's other columns) -> score, 1.0 for right and 0.0 for wrong, or anything between."""

GRADERS: Registry[Grader] = Registry("grader")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def normal(text: str) -> str:
    """Text without what does not matter: kinds of spaces and forms of letters."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


@GRADERS.add("exact_match")
def exact_match(answer: str, expected: str, columns: Mapping[str, Any]) -> float:
    """The answer is the expected text, up to spaces."""
    return float(normal(answer) == normal(expected))


@GRADERS.add("contains")
def contains(answer: str, expected: str, columns: Mapping[str, Any]) -> float:
    """The expected text stands somewhere in the answer, in either case of letters."""
    return float(normal(expected).casefold() in normal(answer).casefold())


@GRADERS.add("number")
def number(answer: str, expected: str, columns: Mapping[str, Any]) -> float:
    """The last number of the answer is the last number of the expected text; 1,200.50 and 1200.5 are equal."""
    said, wanted = last_number(answer), last_number(expected)
    return float(said is not None and wanted is not None and abs(said - wanted) <= 1e-9 * max(1.0, abs(wanted)))


def last_number(text: str) -> float | None:
    """The number at the end of a piece of reasoning, with thousands in groups of three or not."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-"))
    return float(found[-1].replace(",", "")) if found else None


def grader(name: str) -> Grader:
    """A grader by name, or the user's own as `module:function` or `file.py:function`.

    Raises C003 for an unknown name, and C040 for a function that is not there or cannot be called with three arguments.
    """
    if ":" not in name:
        return GRADERS[name]
    found = function_at(name)
    try:
        inspect.signature(found).bind("", "", {})
    except TypeError:
        fix = "def grade(answer, expected, columns): return 1.0 if ... else 0.0"
        raise HoneError("C040", f"'{name.rpartition(':')[2]}' does not take three arguments", where=name, fix=fix) from None
    return found


def graded(name: str, grade: Grader, answer: str, expected: str, columns: Mapping[str, Any]) -> float:
    """The score of one answer. Raises C041 where the grader fails, or says something that is not a finite number."""
    try:
        score = float(grade(answer, expected, columns))
    except Exception as error:  # the user's own function may fail in any way
        raise HoneError("C041", f"the grader failed: {type(error).__name__}: {error}", where=name, fix="mend the function") from error
    if not math.isfinite(score):
        raise HoneError("C041", f"the grader said {score}", where=name, fix="let it return a number, 1.0 for right and 0.0 for wrong")
    return score
