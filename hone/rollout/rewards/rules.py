"""Rewards that need nothing but the answer and its row: equality, numbers, patterns, lengths."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from hone.rollout.rewards.base import Reward, Tools, Written, expected, kind, rule
from hone.rollout.rewards.worker import guarded

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")
FORMAT = r"\s*<think>(?:(?!</?think>).)*</think>\s*<answer>(?:(?!</?answer>).)*</answer>\s*"
"""Reasoning, then the answer, each once and nothing beside them."""


@rule
def exact(written: Written, *, column: str = "answer", ignore_case: bool = False) -> float:
    """1 where the answer is the row's expected text, up to kinds of spaces; else 0."""
    said, wanted = _normal(written.text), _normal(expected(written.row, column))
    return float(said.casefold() == wanted.casefold() if ignore_case else said == wanted)


@rule
def contains(written: Written, *, text: str | None = None, column: str = "answer") -> float:
    """1 where a text (or the row's expected answer) stands in the answer, in either case of letters; else 0."""
    wanted = expected(written.row, column) if text is None else text
    return float(_normal(wanted).casefold() in _normal(written.text).casefold())


@rule
def number(written: Written, *, column: str = "answer", tolerance: Annotated[float, Ge(0)] = 1e-9) -> float:
    """1 where the last number of the answer is the last number of the row's expected text, up to a relative tolerance; else 0."""
    said, wanted = last_number(written.text), last_number(expected(written.row, column))
    if wanted is None:
        raise ValueError(f"there is no number in the expected answer {written.row[column]!r}")
    return float(said is not None and abs(said - wanted) <= tolerance * max(1.0, abs(wanted)))


@rule
def length(
    written: Written,
    *,
    most: Annotated[int, Ge(1)],
    least: Annotated[int, Ge(0)] = 0,
    unit: Literal["tokens", "words", "characters"] = "words",
) -> float:
    """1 where the answer's length is from `least` to `most`; outside, the ratio to the nearer of the two."""
    count = {"tokens": written.tokens, "words": len(written.text.split()), "characters": len(written.text)}[unit]
    return min(1.0, most / max(count, 1), count / least if least else 1.0)


@rule
def overlong(written: Written, *, most: Annotated[int, Gt(0)], cushion: Annotated[int, Gt(0)]) -> float:
    """The soft penalty of DAPO (arXiv 2503.14476): 0 up to `most - cushion` tokens, then down to -1 at `most` or where it was cut."""
    if not written.stopped:
        return -1.0
    return -min(1.0, max(0.0, (written.tokens - (most - cushion)) / cushion))


@rule
def finished(written: Written) -> float:
    """1 where the answer ended by itself, 0 where it was cut at the longest length."""
    return float(written.stopped)


@kind
def regex(tools: Tools, *, pattern: str, whole: bool = False) -> Reward:
    """1 where a regular expression is found in the answer (or, with `whole`, is all of it); `.` also stands for line ends."""
    re.compile(pattern)
    return guarded("hone.rollout.rewards.rules:matches", tools, {"pattern": pattern, "whole": whole})


@kind
def format(tools: Tools, *, pattern: str = FORMAT) -> Reward:
    """1 where the answer is <think>...</think><answer>...</answer> and nothing else, or the pattern of yours; else 0."""
    re.compile(pattern)
    return guarded("hone.rollout.rewards.rules:matches", tools, {"pattern": pattern, "whole": True})


def matches(answer: str, row: Any, *, pattern: str, whole: bool) -> float:
    """Whether a pattern fits; runs in a process of its own, since some patterns take for ever on some texts."""
    find = re.compile(pattern, re.DOTALL).fullmatch if whole else re.compile(pattern, re.DOTALL).search
    return float(find(answer) is not None)


def last_number(text: str) -> float | None:
    """The number at the end of a piece of reasoning, with thousands in groups of three or not."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-"))
    return float(found[-1].replace(",", "")) if found else None


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
