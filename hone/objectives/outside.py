"""Objectives by name: those of the house, and those of a user's own file, written as `my_file.py:my_loss`."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from hone.core.errors import HoneError
from hone.objectives.base import OBJECTIVES, Objective


def find(name: str) -> Objective:
    """The objective of this name. Raises C003 for an unknown name, C055 for a file that does not hold it."""
    file, colon, function = name.rpartition(":")
    return _outside(file, function) if colon and file.endswith(".py") else OBJECTIVES[name]


@cache
def _outside(file: str, function: str) -> Objective:
    """Run a user's file once; its decorated functions file themselves."""
    path = Path(file)
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise HoneError("C055", f"there is no file '{file}'", where="objective.name", fix="check the path: my_file.py:my_loss")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if function not in OBJECTIVES:
        what = f"'{file}' has no objective '{function}'"
        raise HoneError("C055", what, where="objective.name", fix="decorate the function: @objective(needs='logp', unit='token')")
    return OBJECTIVES[function]
