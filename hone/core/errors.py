"""Errors that a user can act on: what happened, where, and how to mend it, under a stable code."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from hone.core.yamlfile import read_yaml

EXIT_USAGE, EXIT_DATA, EXIT_RESOURCES = 2, 3, 4
_EXITS = {
    "C": EXIT_USAGE,
    "D": EXIT_DATA,
    "T": EXIT_DATA,
    "P": EXIT_DATA,
    "S": EXIT_DATA,
    "M": EXIT_USAGE,
    "H": EXIT_USAGE,
    "F": EXIT_RESOURCES,
}


class HoneError(Exception):
    """A fault of the input or the machine, never of our code.

    `code` is a letter (C config, D data, T template, P preference data, M model, R reward, S safety, F run and disk,
    H the doctor's findings) and three digits; `hone explain CODE` knows it. V is for proofs, which are results and never raised.
    """

    def __init__(self, code: str, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.code, self.what, self.where, self.fix = code, what, where, fix

    @property
    def exit_status(self) -> int:
        return _EXITS.get(self.code[0], 1)

    def __str__(self) -> str:
        parts = [f"{self.code}: {self.what}"]
        if self.where:
            parts.append(f"  at  {self.where}")
        if self.fix:
            parts.append(f"  fix {self.fix}")
        return "\n".join(parts)


class Code(NamedTuple):
    """One entry of the catalogue behind `hone explain`."""

    title: str
    why: str
    fix: str
    zh: str = ""
    """All of it in Chinese."""


@cache
def catalogue() -> dict[str, Code]:
    """Every code that hone can raise, read from `hone/core/codes/*.yaml` (title, why, fix); in Chinese there or in codes.zh.yaml."""
    here = Path(__file__).parent
    chinese: dict[str, str] = read_yaml(here / "codes.zh.yaml")
    found: dict[str, Code] = {}
    for file in sorted((here / "codes").glob("*.yaml")):
        for code, entry in (read_yaml(file) or {}).items():
            assert code not in found, f"{code} is described twice"
            found[code] = Code(entry["title"], entry["why"], entry["fix"], str(entry.get("zh") or chinese.get(code, "")).strip())
    return found
