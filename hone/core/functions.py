"""A function of the user's own, by name: `module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hone.core.errors import HoneError
from hone.core.registry import nearest


def function_at(name: str) -> Callable[..., Any]:
    """Import the file or module and return its function. Raises C040 where either is not there."""
    place, _, function = name.rpartition(":")
    module = _from_file(Path(place), name) if place.endswith(".py") else _from_module(place, name)
    found = vars(module).get(function)
    if not callable(found):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        fix = nearest(function, known) if known else f"define it there: def {function}(...): ..."
        raise HoneError("C040", f"there is no function '{function}' in {place}", where=name, fix=fix)
    made: Callable[..., Any] = found
    return made


def _from_file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise HoneError("C040", f"there is no file {path}", where=name, fix="check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_module(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise
        fix = f"check the name, or give a file: path/to/file.py:{name.rpartition(':')[2]}"
        raise HoneError("C040", f"there is no module '{place}'", where=name, fix=fix) from None
