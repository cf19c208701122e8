"""What a rule is, what it is told, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from hone.plan.advise import HIDDEN, IMITATING, SLOPE

Level = Literal["error", "warning", "note"]
"""error: will not do what is meant. warning: will probably disappoint. note: worth knowing."""


@dataclass(frozen=True, slots=True)
class Case:
    """A run as rules see it. What is not known is None, and rules about it are silent."""

    settings: Mapping[str, Any]
    """All sections with every default filled in."""
    rows: int | None = None
    held_out: int | None = None
    steps: int | None = None
    tokens: int | None = None
    """Of one pass."""
    eval_tokens: int | None = None
    """Of one evaluation."""
    longest: int | None = None
    truncated: float | None = None
    duplicates: float | None = None
    hidden: int | None = None
    parameters: int | None = None
    kind: str | None = None
    """base or instruct."""
    has_template: bool | None = None
    quantised: str | None = None
    vocabulary: frozenset[str] = field(default=frozenset(), repr=False)
    """Control tokens of the tokenizer."""

    def __getitem__(self, key: str) -> Any:
        """A setting by its dotted name; None where there is no such setting."""
        section, _, name = key.partition(".")
        return self.settings.get(section, {}).get(name)

    @property
    def method(self) -> str:
        return str(self["tuning.method"])

    @property
    def objective(self) -> str:
        return str(self["objective.name"])

    @property
    def imitates(self) -> bool:
        return self.objective in IMITATING

    @property
    def adapts(self) -> bool:
        """Whether small matrices beside frozen weights are trained."""
        return self["tuning.rank"] is not None

    @property
    def width_factor(self) -> float:
        """How much faster a model of this width may learn than one of 7B."""
        return (HIDDEN / self.hidden) ** SLOPE if self.hidden else 1.0


class Found(NamedTuple):
    """What is wrong here, and the settings that satisfy the rule (none where only the data or the model can)."""

    what: str
    change: Mapping[str, Any] = {}


Look = Callable[[Case], Found | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Why it holds is explained under its code."""

    code: str
    level: Level
    source: str
    look: Look

    @property
    def title(self) -> str:
        return (self.look.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a run breaks."""

    code: str
    level: Level
    what: str
    change: Mapping[str, Any]
    source: str


RULES: dict[str, Rule] = {}
"""Code -> rule."""


def rule(code: str, level: Level, *, source: str) -> Callable[[Look], Look]:
    """File a rule under its code."""

    def keep(look: Look) -> Look:
        assert code not in RULES, f"{code} is filed twice"
        RULES[code] = Rule(code, level, source, look)
        return look

    return keep


def check(case: Case) -> list[Finding]:
    """All that is to be said about a run, the gravest first."""
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
    found = [(one, one.look(case)) for one in RULES.values()]
    said = [Finding(one.code, one.level, hit.what, hit.change, one.source) for one, hit in found if hit is not None]
    return sorted(said, key=lambda finding: (order[finding.level], finding.code))
