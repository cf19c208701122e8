"""What a finding is, what it stands on, and what may cure it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hone.plan.doctor.chart import Chart

CERTAIN, LIKELY, POSSIBLE = 0.95, 0.8, 0.6
"""Confidences: it was counted; several signs agree; one sign that has other explanations too."""


class Remedy(NamedTuple):
    """One thing to do about it. `change` are settings by their dotted names; with `arms` there are several to try side by side."""

    title: str
    change: Mapping[str, Any] = {}
    arms: tuple[Mapping[str, Any], ...] = ()

    @property
    def changes(self) -> tuple[Mapping[str, Any], ...]:
        """The settings of each run that this remedy asks for; none where only the data or a person can help."""
        return self.arms or ((self.change,) if self.change else ())


class Found(NamedTuple):
    """A finding's verdict on one chart."""

    verdict: str
    confidence: float
    evidence: tuple[str, ...] = ()
    """Numbers, in words."""
    curves: tuple[str, ...] = ("loss", "eval_loss")
    """The series that show it."""
    mark: tuple[float, str] | None = None
    """The step where it begins, and what to write there."""
    remedies: tuple[Remedy, ...] = ()


class Unknown(NamedTuple):
    """The chart lacks what this finding needs."""

    missing: str


Look = Callable[[Chart], Found | Unknown | None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding. Why it happens and what it means is explained under its code."""

    code: str
    name: str
    source: str
    look: Look
    live: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What the doctor found in one run."""

    code: str
    name: str
    source: str
    verdict: str
    confidence: float
    evidence: tuple[str, ...]
    curves: tuple[str, ...]
    mark: tuple[float, str] | None
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings, the surest first; what could not be judged, by name; and what was looked for in vain."""

    findings: tuple[Finding, ...]
    unknown: Mapping[str, str]
    clear: tuple[str, ...]

    @property
    def remedies(self) -> list[tuple[Finding, Remedy]]:
        """All remedies in the order of their findings; the numbers of `--apply` count them from 1."""
        return [(finding, remedy) for finding in self.findings for remedy in finding.remedies]


FINDINGS: dict[str, Kind] = {}
"""Code -> kind."""


def finding(code: str, name: str, *, source: str, live: bool = True) -> Callable[[Look], Look]:
    """File a finding under its code. With `live` it is looked for while the run goes on, too."""

    def keep(look: Look) -> Look:
        assert code not in FINDINGS, f"{code} is filed twice"
        FINDINGS[code] = Kind(code, name, source, look, live)
        return look

    return keep


def diagnose(chart: Chart) -> Diagnosis:
    """Ask every finding about a chart."""
    found: list[Finding] = []
    unknown: dict[str, str] = {}
    clear: list[str] = []
    for kind in FINDINGS.values():
        if chart.running and not kind.live:
            continue
        said = kind.look(chart)
        if isinstance(said, Found):
            found.append(Finding(kind.code, kind.name, kind.source, *said))
        elif isinstance(said, Unknown):
            unknown[kind.name] = said.missing
        else:
            clear.append(kind.name)
    return Diagnosis(tuple(sorted(found, key=lambda one: -one.confidence)), unknown, tuple(clear))
