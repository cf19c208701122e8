"""Which arm of a sweep is the best, and whether it really is: paired intervals over the same held-out rows, and over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone.core.errors import HoneError
from hone.core.estimates import Difference, Estimate
from hone.eval import answers
from hone.eval.differences import LEVEL, Side, difference, estimate, side, value_of
from hone.eval.evaluate import Evaluation
from hone.eval.heldout import HeldOut, recall
from hone.recipe.grid import Arm, Axis
from hone.report.numbers import loss_text, percent


@dataclass(frozen=True, slots=True)
class Place:
    """One arm with all its seeds."""

    name: str
    folders: tuple[Path, ...]
    value: Estimate
    """By what the sweep is ranked."""
    behind: Difference | None = None
    """How much worse than the best; None for the best itself."""
    score: Estimate | None = None
    """Share of right answers, where questions were asked."""
    spread: float | None = None
    """Standard deviation over the seeds."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Arms from the best to the worst."""

    by: str
    """loss (less is better), accuracy or answers."""
    places: tuple[Place, ...]
    rows: int
    paired: bool

    def text(self, value: float) -> str:
        return loss_text(value) if self.by == "loss" else percent(value)

    def change(self, value: float) -> str:
        """A difference in the same unit."""
        return f"{value:.2g}" if self.by == "loss" else f"{100 * value:.1f} points"

    @property
    def verdict(self) -> str:
        """Whether the best is really better than the second."""
        best, *others = self.places
        if not others:
            return f"{best.name} is the only one that is left."
        second = others[0]
        assert second.behind is not None
        low, high = sorted((second.behind.low, second.behind.high))
        what = f"{best.name} is the best; {second.name} is {self.change(abs(second.behind.value))} behind"
        rows = f"the same {self.rows:,} rows" if self.paired else f"{self.rows:,} rows, not the same ones"
        interval = f"({self.change(low)} to {self.change(high)}, {rows})"
        if second.behind.apart:
            return f"{what} {interval}: more than chance, also for a choice among {len(self.places)}."
        hidden = self.change(second.behind.smallest)
        return f"{what} {interval}. That can be chance: these rows show differences from {hidden} on. More rows, or --seeds, would tell."

    def to_json(self) -> dict[str, Any]:
        def plain(found: Any) -> Any:
            return None if found is None else found._asdict()

        places = [
            {
                "name": p.name, "folders": [str(f) for f in p.folders], "value": plain(p.value), "behind": plain(p.behind),
                "score": plain(p.score), "spread": p.spread,
            }
            for p in self.places
        ]  # fmt: skip
        return {"by": self.by, "rows": self.rows, "paired": self.paired, "places": places, "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is known of one arm, seed by seed."""

    name: str
    folders: tuple[Path, ...]
    held: tuple[HeldOut, ...]
    told: tuple[Evaluation, ...]


def order(folder: Path, arms: Sequence[Arm]) -> list[str]:
    """Names of arms, the best first."""
    return [place.name for place in rank(folder, arms).places]


def rank(folder: Path, arms: Sequence[Arm]) -> Ranking:
    """Rank arms by what all of them have in common. Raises C146 where that is nothing."""
    measured = [_measured(name, folder, arms) for name in dict.fromkeys(arm.name for arm in arms)]
    by, paired = _measure_of(measured)
    sides = {one.name: _side(one, by) for one in measured}
    sign = 1.0 if by == "loss" else -1.0
    best_first = sorted(measured, key=lambda one: sign * value_of(sides[one.name]))
    best, level = best_first[0], 1 - (1 - LEVEL) / max(1, len(measured) - 1)
    places = []
    for one in best_first:
        behind = None if one is best else _turned(difference(sides[best.name], sides[one.name], level=level, paired=paired), sign)
        spread = (
            float(np.std([value_of(sides[one.name][i : i + 1]) for i in range(len(one.folders))], ddof=1)) if len(one.folders) > 1 else None
        )
        places.append(Place(one.name, one.folders, estimate(sides[one.name]), behind, _score(one), spread))
    return Ranking(by, tuple(places), sides[best.name].shape[1], paired)


def _turned(found: Difference, sign: float) -> Difference:
    """Behind is positive for the worse, whichever way the measure counts."""
    if sign > 0:
        return found
    return found._replace(value=-found.value, low=-found.high, high=-found.low)


def _measured(name: str, folder: Path, arms: Sequence[Arm]) -> _Measured:
    places = tuple(folder / arm.folder for arm in arms if arm.name == name)
    held = tuple(found for place in places if (found := recall(place)) is not None)
    told = tuple(said for place in places if (said := answers.recall(place)) is not None and said.outcomes)
    return _Measured(name, places, held if len(held) == len(places) else (), told if len(told) == len(places) else ())


def _measure_of(measured: Sequence[_Measured]) -> tuple[str, bool]:
    """What the arms can be ranked by, and whether it was measured on the same rows."""
    held = [found for one in measured for found in one.held]
    if all(one.held for one in measured):
        same_rows = len({(found.data, found.rows) for found in held}) == 1
        if all(found.objective == held[0].objective for found in held):
            return "loss", same_rows
        if same_rows and all("accuracy" in found.sums for found in held):
            return "accuracy", True
    if all(one.told for one in measured):
        keys = {tuple(outcome.key for outcome in told.outcomes) for one in measured for told in one.told}
        return "answers", len(keys) == 1
    if all(one.held for one in measured):
        what = "the arms have different objectives, so their losses are different quantities, and nothing else was measured"
        raise HoneError("C146", what, where="hone sweep", fix="let them answer questions: --questions 64")
    what = f"nothing was measured that all arms have: {', '.join(one.name for one in measured if not one.held)} kept no rows aside"
    raise HoneError("C146", what, where="data.held_out", fix="keep some rows aside, as in data.held_out=0.1")


def _side(one: _Measured, by: str) -> Side:
    if by == "answers":
        found = [answers.points(told.outcomes) for told in one.told]
        return side(*((points, np.ones(len(points))) for points in found))
    return side(*((held.column(by), held.column("units")) for held in one.held))


def _score(one: _Measured) -> Estimate | None:
    return estimate(_side(one, "answers")) if one.told else None


def edge(axes: Sequence[Axis], arms: Sequence[Arm], best: str) -> str:
    """Where the best value of a numeric axis is the last of its list, one that lies further out; "" where it is not."""
    words = next(arm.overrides for arm in arms if arm.name == best)
    for axis, word in zip(axes, words, strict=True):
        try:
            values = sorted(float(value) for value in axis.values)
        except ValueError:
            continue
        mine = float(word.partition("=")[2])
        if len(values) < 2 or values[0] <= 0 or mine not in (values[0], values[-1]):
            continue
        next_to_it = values[1] if mine == values[0] else values[-2]
        further = mine * mine / next_to_it
        text = f"{round(further)}" if all(value == int(value) for value in values) else f"{further:.2g}"
        if float(text) > 0 and text != word.partition("=")[2]:
            return f"{axis.key}={text}"
    return ""
