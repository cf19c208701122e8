"""What `hone prove` has proved of a run, as its card shows it: only where the record is whole and about these settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hone.core.seal import SEAL, whole
from hone.report.folder import Record, RunFolder, plain, record, records
from hone.report.numbers import finite

BESIDE = ("output", "eval", "hardware")
"""Sections that change nothing of what is proved."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One proof as a row of a table."""

    says: str
    measured: str
    bound: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Proofs:
    """Claims, the seal of their record, and on what they were tried; or why the record counts for nothing."""

    claims: tuple[Claim, ...] = ()
    seal: str = ""
    subject: str = ""
    doubt: str = ""

    @property
    def held(self) -> int:
        return sum(claim.holds for claim in self.claims)


def read_proofs(run: RunFolder) -> Proofs | None:
    """The proofs of a run; None where it was never proved."""
    document = run.proof
    if not document:
        return None
    if not whole(document):
        return Proofs(doubt="proof.json was changed after it was written: its seal does not fit")
    other = differing(record(document.get("settings")), run.resolved)
    if other:
        return Proofs(doubt=f"proof.json is about other settings than this run's: {', '.join(other[:3])}")
    small, versions = record(document.get("small")), record(document.get("versions"))
    kind, size = plain(small.get("architecture", "a model")), plain(small.get("parameters", "some"))
    subject = f"{kind} of {size} parameters, hone {versions.get('hone', '')}"
    claims = tuple(_claim(one) for one in records(document.get("proofs")) if one.get("measured") is not None or not one.get("holds"))
    return Proofs(claims, plain(document.get(SEAL, "")), subject)


def _claim(one: Record) -> Claim:
    measured, bound = finite(one.get("measured")), finite(one.get("bound"))
    shown = f"{bound:.2g} {plain(one.get('unit', ''))}" if bound is not None else ""
    return Claim(plain(one.get("says", "")), "none" if measured is None else f"{measured:.2g}", shown.strip(), bool(one.get("holds")))


def differing(proved: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    """Dotted settings that were asked for when it was proved and are others now. What was left open is filled in later."""
    return [
        f"{section}.{name}" if name else section
        for section, values in proved.items()
        if section not in BESIDE
        for name, value in (values.items() if isinstance(values, Mapping) else [("", values)])
        if value not in (None, [], ()) and value != _at(run, section, name)
    ]


def _at(run: Mapping[str, Any], section: str, name: str) -> Any:
    found = run.get(section)
    return record(found).get(name) if name else found
