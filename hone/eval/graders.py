"""Graders: from an answer and the expected text to a score. A new one is one function, here or in a file of the user's."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from hone.core.errors import HoneError
from hone.core.registry import Registry, nearest

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
    place, _, function = name.rpartition(":")
    module = _from_file(Path(place), name) if place.endswith(".py") else _from_module(place, name)
    found = vars(module).get(function)
    if not callable(found):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        fix = nearest(function, known) if known else "define it there: def grade(answer, expected, columns): ..."
        raise HoneError("C040", f"there is no function '{function}' in {place}", where=name, fix=fix)
    try:
        inspect.signature(found).bind("", "", {})
    except TypeError:
        fix = "def grade(answer, expected, columns): return 1.0 if ... else 0.0"
        raise HoneError("C040", f"'{function}' does not take three arguments", where=name, fix=fix) from None
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


def _from_file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise HoneError("C040", f"there is no file {path}", where=name, fix="check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_module(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        fix = f"check the name, or give a file: path/to/file.py:{name.rpartition(':')[2]}"
        raise HoneError("C040", f"there is no module '{place}'", where=name, fix=fix) from None
