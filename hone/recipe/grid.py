"""What a sweep varies: words such as optim.learning_rate=1e-4,5e-5 as axes, and the arms that their product makes; no torch."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from itertools import product
from math import exp, log, prod
from pathlib import Path
from typing import NamedTuple

from hone.core.errors import HoneError
from hone.recipe.words import ALIASES, MAIN_FIELD

LISTS = {
    "optim.learning_rate": ("2e-4", "1e-4", "5e-5", "2e-5"),
    "optim.epochs": ("1", "2", "3"),
    "optim.batch_size": ("4", "8", "16", "32"),
    "optim.warmup_ratio": ("0.03", "0.05", "0.1"),
    "optim.weight_decay": ("0", "0.01", "0.1"),
    "optim.schedule": ("linear", "cosine", "constant"),
    "tuning.rank": ("8", "16", "32", "64", "128"),
    "tuning.dropout": ("0", "0.05", "0.1"),
    "tuning.b_rate": ("1", "4", "16"),
    "objective.beta": ("0.05", "0.1", "0.3", "0.5"),
}
"""Values that the field's guides tell to try, for an axis that is named without values."""
MOST = 256
"""Arms of one sweep."""
NEVER = ("output.folder", "seed", "data.seed", "eval.max_rows")
"""Settings that cannot be varied: each arm has its own folder, --seeds varies the seed, and all arms are measured on the same rows."""
_RANGE = re.compile(r"([-+.\deE]+)\.\.([-+.\deE]+)")


class Axis(NamedTuple):
    """One setting and the values that it takes, as they were written; or the range that a search draws from."""

    key: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def is_range(self) -> bool:
        return self.low is not None


class Arm(NamedTuple):
    """One run of a sweep."""

    name: str
    """What it varies, also the name of its folder: learning_rate=1e-4,rank=8."""
    overrides: tuple[str, ...]
    seed: int | None = None

    @property
    def folder(self) -> str:
        return self.name if self.seed is None else f"{self.name},seed={self.seed}".removeprefix(",")

    @property
    def words(self) -> tuple[str, ...]:
        return self.overrides if self.seed is None else (*self.overrides, f"seed={self.seed}")


def axes_of(words: Iterable[str]) -> tuple[list[str], list[Axis]]:
    """Plain settings, and axes: a setting with several values, a range LOW..HIGH, or a known setting without a value.

    Raises C140 for a setting without values of which none are known, C141 for values that are empty or one range among several,
    C142 for a setting that is given twice or cannot be varied.
    """
    plain: list[str] = []
    axes: list[Axis] = []
    for word in words:
        axis = _axis(word)
        if axis is None:
            plain.append(word)
        else:
            axes.append(axis)
    _check(plain, axes)
    return plain, axes


def _axis(word: str) -> Axis | None:
    name, equals, text = word.lstrip("-").partition("=")
    key = full_name(name)
    if not equals:
        if key not in LISTS:
            fix = f"write them: {name}=A,B,C; for these they are known: {', '.join(LISTS)}"
            raise HoneError("C140", f"which values shall '{name}' take?", where=word, fix=fix)
        return Axis(key, LISTS[key])
    found = _RANGE.fullmatch(text)
    if found is not None:
        return _range(key, found, word)
    values = list(dict.fromkeys(pieces(text)))
    if len(values) < 2:
        return None
    if not all(values):
        raise HoneError("C141", f"'{word}' has an empty value", where=key, fix="separate values by single commas: KEY=a,b,c")
    return Axis(key, tuple(values))


def _range(key: str, found: re.Match[str], word: str) -> Axis:
    try:
        low, high = float(found[1]), float(found[2])
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise HoneError("C141", f"'{word}' is no range", where=key, fix="write the smaller number first: optim.learning_rate=1e-5..1e-3")
    return Axis(key, low=low, high=high)


def _check(plain: Sequence[str], axes: Sequence[Axis]) -> None:
    fixed = {full_name(word.lstrip("-").partition("=")[0]) for word in plain}
    seen: set[str] = set()
    for axis in axes:
        if axis.key in fixed | seen:
            raise HoneError("C142", f"'{axis.key}' is given twice", where=axis.key, fix="keep one of the two")
        if axis.key in NEVER:
            fix = "--seeds 3 trains each arm three times" if axis.key == "seed" else "leave it out of the sweep"
            raise HoneError("C142", f"'{axis.key}' cannot be varied", where=axis.key, fix=fix)
        seen.add(axis.key)


def full_name(key: str) -> str:
    """A setting by its own name: lr is optim.learning_rate, model is model.name."""
    key = ALIASES.get(key, key)
    return f"{key}.{MAIN_FIELD[key]}" if key in MAIN_FIELD else key


def pieces(text: str) -> list[str]:
    """Split at commas that stand in no bracket and in no quotes."""
    found, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and depth == 0 and not quote:
            found.append("")
        else:
            found[-1] += letter
    return [each.strip() for each in found]


def arms_of(axes: Sequence[Axis], *, seeds: Sequence[int] = ()) -> list[Arm]:
    """All combinations, each with every seed. Raises C143 for ranges, which only a search can use, for too many, and for a single one."""
    for axis in axes:
        if axis.is_range:
            fix = f"name values, {axis.key}=A,B,C; or draw from the range with --search random --trials 8"
            raise HoneError("C143", f"'{axis.key}' is a range, which no grid can run through", where=axis.key, fix=fix)
    count = prod(len(axis.values) for axis in axes) * max(1, len(seeds))
    if count > MOST:
        fix = "vary less, or draw some of them: --search random --trials 16"
        raise HoneError("C143", f"that makes {count:,} runs, and {MOST} is the most", where="hone sweep", fix=fix)
    if count < 2:
        fix = "name a setting with several values, as in optim.learning_rate=1e-4,5e-5, or --seeds 3"
        raise HoneError("C143", "a sweep compares at least two runs", where="hone sweep", fix=fix)
    arms = [named(axes, values) for values in product(*(axis.values for axis in axes))]
    if len({arm.name for arm in arms}) < len(arms):
        what = "two arms would have the same name, for some values differ only in signs"
        raise HoneError("C142", what, where="hone sweep", fix="write these values differently, or into two run files")
    return [each for arm in arms for each in with_seeds(arm, seeds)]


def named(axes: Sequence[Axis], values: Sequence[str]) -> Arm:
    """The arm with these values, one for each axis."""
    short = [axis.key.rpartition(".")[2] for axis in axes]
    names = [last if short.count(last) == 1 else axis.key for last, axis in zip(short, axes, strict=True)]
    told = ",".join(f"{name}={_told(value)}" for name, value in zip(names, values, strict=True))
    return Arm(told, tuple(f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)))


def with_seeds(arm: Arm, seeds: Sequence[int]) -> list[Arm]:
    return [arm._replace(seed=seed) for seed in seeds] or [arm]


def _told(value: str) -> str:
    """A value as a part of a folder's name."""
    plain = Path(value).name if "/" in value else value
    return re.sub(r"[^\w.+-]+", "-", plain).strip("-") or "none"


def drawn(axes: Sequence[Axis], trials: int, *, seed: int) -> list[Arm]:
    """So many different arms at random: from ranges above zero evenly in their logarithm, from lists evenly; by the seed alone."""
    dice, found = random.Random(seed), dict[str, Arm]()
    for _ in range(50 * trials):
        arm = named(axes, [draw(axis, dice.random()) for axis in axes])
        found.setdefault(arm.name, arm)
        if len(found) == trials:
            break
    return list(found.values())


def draw(axis: Axis, at: float) -> str:
    """The value at a place between 0 and 1 of an axis; numbers have three digits, and whole ends give whole numbers."""
    if axis.low is None or axis.high is None:
        return axis.values[min(len(axis.values) - 1, int(at * len(axis.values)))]
    low, high = (log(axis.low), log(axis.high)) if axis.low > 0 else (axis.low, axis.high)
    value = low + at * (high - low)
    value = exp(value) if axis.low > 0 else value
    whole = axis.low == int(axis.low) and axis.high == int(axis.high) and axis.high > 1
    return str(round(value)) if whole else f"{value:.3g}"
