"""The settings that a run has written down: resolved.json, read in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hone.core.errors import HoneError

NAME = "resolved.json"


def readable(folder: Path) -> dict[str, Any] | None:
    """All that a run was started with, and the reasons of what was chosen for it; None where the file is damaged, or not there."""
    try:
        found = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and all(isinstance(found.get(section), dict) for section in ("model", "data"))
    return found if whole else None


def resolved_of(folder: Path) -> dict[str, Any]:
    """The same of a run that must have it. Raises F061 where there is no run, and F062 where the file is damaged."""
    if not (folder / NAME).is_file():
        raise HoneError("F061", "there is no run folder here", where=str(folder), fix="give the folder that `hone train` wrote")
    found = readable(folder)
    if found is None:
        fix = "run the same `hone train` command again, which writes it anew, or copy the run folder again"
        raise HoneError("F062", "the settings of this run cannot be read", where=str(folder / NAME), fix=fix)
    return found


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings alone, as `resolve` takes them. Raises F061 and F062."""
    return {key: value for key, value in resolved_of(folder).items() if key != "reasons"}
