"""`hone doctor`: a run folder's chart and diagnosis, and a remedy as a run file that differs by nothing else."""

from __future__ import annotations

import shlex
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hone.core.errors import HoneError
from hone.core.files import write_atomically
from hone.plan.doctor import Chart, Diagnosis, diagnose
from hone.recipe.written import settings_in
from hone.report.chart import chart_of
from hone.report.folder import read_run


class Written(NamedTuple):
    """A run file that applies a remedy, and the command that trains it."""

    file: Path
    command: str


def examine(folder: Path) -> tuple[Chart, Diagnosis]:
    """The chart of a run, finished or not, and what it says. Raises F061 where there is no run folder."""
    chart = chart_of(read_run(folder))
    return chart, diagnose(chart)


def apply(folder: Path, diagnosis: Diagnosis, number: int, *, to: str = "") -> list[Written]:
    """Write the run files of a remedy, counted from 1: the run's own settings with exactly that change, and a folder of their own.

    Raises H040 for a number that is not there, and H041 for a remedy that no setting brings.
    """
    remedies = diagnosis.remedies
    if not 1 <= number <= len(remedies):
        told = f"1 to {len(remedies)}" if remedies else "none"
        raise HoneError("H040", f"there is no remedy {number}", where="--apply", fix=f"remedies here: {told}")
    remedy = remedies[number - 1][1]
    if not remedy.changes:
        raise HoneError("H041", f"no setting brings remedy {number}: {remedy.title}", where="--apply", fix="do it, and train again")
    base = _settings(folder)
    place = Path(to).with_suffix("") if to else folder.parent / f"{folder.name}-remedy-{number}"
    ends = [f"-{letter}" for letter in string.ascii_lowercase] if len(remedy.changes) > 1 else [""]
    return [_write(base, change, place.with_name(place.name + end)) for change, end in zip(remedy.changes, ends, strict=False)]


def changed(settings: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with some replaced: `section.name`, or a whole section by its name."""
    found: dict[str, Any] = {name: dict(value) if isinstance(value, Mapping) else value for name, value in settings.items()}
    for key, value in change.items():
        section, dot, name = key.partition(".")
        if dot:
            inside = found.get(section) or {}
            old = inside.get(name)
            found[section] = {**inside, name: {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value}
        else:
            found[section] = value
    return found


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "recipe.yaml"
    if file.is_file():
        return dict(yaml.safe_load(file.read_text("utf-8")))
    return settings_in(folder)


def _write(base: Mapping[str, Any], change: Mapping[str, Any], place: Path) -> Written:
    settings = changed(base, {**change, "output.folder": str(place)})
    file = place.with_name(f"{place.name}.yaml")
    write_atomically(file, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return Written(file, f"hone train {shlex.quote(str(file))}")
