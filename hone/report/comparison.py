"""Several runs side by side: what differs in their settings, their curves, their scores and what they cost; as words and as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from hone.core.estimates import Difference, Estimate
from hone.report.facts import Facts
from hone.report.folder import RunFolder, plain
from hone.report.numbers import duration, loss_text, percent, short, size, smooth, whole
from hone.report.svg import Series, forest, line_chart

HERE = Path(__file__).parent
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLOURS = 8
"""Runs with a colour of their own in the style sheet; further ones begin again."""
CURVES = (("eval_loss", "Held-out loss"), ("loss", "Training loss"), ("eval_accuracy", "Held-out accuracy"), ("reward", "Reward"))


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of all runs on held-out data."""

    title: str
    n: int
    share: bool
    lower_is_better: bool
    estimates: tuple[Estimate, ...]
    differences: Mapping[str, Difference]
    """Letter -> how far that run is from the first."""

    def text(self, value: float) -> str:
        return percent(value) if self.share else loss_text(value)

    def change(self, value: float) -> str:
        sign = "\N{MINUS SIGN}" if value < 0 else "+"
        return sign + (f"{100 * abs(value):.1f}" if self.share else f"{abs(value):.3g}")

    def told(self, found: Difference) -> str:
        """What a difference justifies saying."""
        if not found.apart:
            return f"may be chance: differences from {self.size(found.smallest)} on would show"
        return "better" if (found.value < 0) == self.lower_is_better else "worse"

    def size(self, value: float) -> str:
        return f"{100 * value:.1f} points" if self.share else f"{value:.2g}"

    def rows_needed(self, found: Difference) -> int | None:
        """About how many rows would show a difference as large as the one at hand; None where this many do, or none would."""
        if found.apart or found.value == 0:
            return None
        return round(found.n * (found.smallest / found.value) ** 2)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that `hone compare` tells. Runs are lettered in the order in which they were given."""

    runs: tuple[RunFolder, ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    """Settings that differ, with the value of each run."""
    measures: tuple[Measure, ...]
    warnings: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Folders, without what all of their paths begin with."""
        paths = [run.path.resolve() for run in self.runs]
        shortest = [path.name for path in paths]
        return shortest if len(set(shortest)) == len(paths) else [str(run.path) for run in self.runs]

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.runs)]

    @property
    def verdict(self) -> str:
        """The first measure in a sentence."""
        if not self.measures:
            return "Nothing was measured on held-out data that these runs have in common."
        first = self.measures[0]
        apart = {letter: found for letter, found in first.differences.items() if found.apart}
        if not apart:
            least = min(found.smallest for found in first.differences.values())
            return (
                f"No run differs from A in {first.title} by more than chance; {first.n} rows show differences from {first.size(least)} on."
            )
        behind = {letter: found for letter, found in apart.items() if first.told(found) == "worse"}
        if len(behind) == len(first.differences):
            told = ", ".join(f"{letter} is {first.size(abs(found.value))} behind" for letter, found in behind.items())
            return f"A is the best in {first.title}: {told}. That is more than chance."
        told = ", ".join(f"{letter} is {first.told(found)} by {first.size(abs(found.value))}" for letter, found in apart.items())
        rest = "" if len(apart) == len(first.differences) else " The others may differ by chance only."
        return f"Against A in {first.title}, {told}: more than chance.{rest}"

    def costs(self) -> list[tuple[str, list[str]]]:
        """What each run took."""
        rows: list[tuple[str, list[str]]] = [
            ("steps", [f"{run.steps[-1]['step']:,}" if run.steps else "" for run in self.runs]),
            ("tokens", [_last(run, "tokens", short) for run in self.runs]),
            ("time in steps", [duration(sum(y for _, y in run.series("seconds"))) for run in self.runs]),
            ("tokens a second", [_middle(run, "tokens_per_second") for run in self.runs]),
            ("peak memory", [size(max((y for _, y in run.series("memory_bytes")), default=0)) for run in self.runs]),
            ("parameters that move", [Facts(run).trainable.partition(" ")[0] for run in self.runs]),
            ("state", [Facts(run).status[0] for run in self.runs]),
        ]
        return [(name, values) for name, values in rows if any(values)]

    def curves(self) -> list[tuple[str, list[Series]]]:
        """Every curve that at least two runs have, in all runs that have it; training curves are smoothed."""
        found = []
        for name, title in CURVES:
            series = []
            for i, run in enumerate(self.runs):
                points = run.series(name)
                if not name.startswith("eval_"):
                    points = list(zip((x for x, _ in points), smooth(y for _, y in points), strict=True))
                if len(points) > 1:
                    series.append(Series(LETTERS[i], points, f"run{i % COLOURS}"))
            if len(series) > 1:
                found.append((title, series))
        return found

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        measures = [
            {
                "title": one.title,
                "n": one.n,
                "lower_is_better": one.lower_is_better,
                "values": {letter: span.to_json() for letter, span in zip(self.letters, one.estimates, strict=True)},
                "differences": [
                    {"letter": letter, **each._asdict(), "apart": each.apart, "rows_needed": one.rows_needed(each)}
                    for letter, each in one.differences.items()
                ],
            }
            for one in self.measures
        ]
        return {
            "runs": {letter: str(run.path) for letter, run in zip(self.letters, self.runs, strict=True)},
            "settings": {key: dict(zip(self.letters, values, strict=True)) for key, values in self.settings},
            "measures": measures,
            "costs": {name: dict(zip(self.letters, values, strict=True)) for name, values in self.costs()},
            "verdict": self.verdict,
            "warnings": list(self.warnings),
        }


def setting_text(value: object) -> str:
    """A setting as people write it."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else plain(value)


def _last(run: RunFolder, name: str, form: Any) -> str:
    points = run.series(name)
    return str(form(points[-1][1])) if points else ""


def _middle(run: RunFolder, name: str) -> str:
    values = sorted(y for _, y in run.series(name))
    return whole(values[len(values) // 2]) if values else ""


def render(found: Comparison) -> str:
    """One page without scripts."""
    charts = [
        (
            title,
            *(
                line_chart(series, label=f"{title} over the steps", width=width, height=height)
                for width, height in ((940, 300), (340, 240))
            ),
        )
        for title, series in found.curves()
    ]
    facts = [Facts(run).subtitle for run in found.runs]
    common = [fact for fact in facts[0] if all(fact in other for other in facts)]
    return _template().render(
        style=Markup("\n".join((HERE / name).read_text("utf-8") for name in ("page.css", "comparison.css"))),
        found=found, runs=list(zip(found.letters, found.names, found.runs, strict=True)),
        common=common, apart=[[fact for fact in of_run if fact not in common] for of_run in facts], charts=charts,
        measures=[(one, _drawn(one)) for one in found.measures],
    )  # fmt: skip


def _drawn(one: Measure) -> Sequence[Markup]:
    """The interval of each difference on one scale."""
    reach = max((max(abs(found.low), abs(found.high)) for found in one.differences.values()), default=1.0) or 1.0
    return [
        forest(found.value, found.low, found.high, reach=reach, look=f"run{LETTERS.index(letter) % COLOURS}",
               label=f"{letter} from A: {one.change(found.value)} ({one.change(found.low)} to {one.change(found.high)})")
        for letter, found in one.differences.items()
    ]  # fmt: skip


@cache
def _template() -> Template:
    env = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters |= {"whole": whole}
    return env.get_template("comparison.html.jinja")
