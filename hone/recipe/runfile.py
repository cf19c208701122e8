"""Reads a run file strictly: what is wrong is said with its line, and no name may stand twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, ScalarNode

from hone.core.errors import HoneError

_SECTIONS = "write sections with settings, for instance `model: Qwen/Qwen3-0.6B` and below it `data: {train: train.jsonl}`"
_HINTS = {
    "found character '\\t'": "indent with spaces, YAML knows no tabs",
    "could not determine a constructor": "a run file holds texts, numbers, lists and sections, and runs no code",
    "mapping values are not allowed here": "put a text with a colon in it into quotes, and indent all settings of a section alike",
    "stands twice": "keep one of the two",
    "expected ',' or": "close the bracket, and put commas between what is in it",
}
_MEND = "mend the line; a text with special characters stands in quotes"


class _Strict(yaml.SafeLoader):
    """Plain values only, and a name once: YAML itself would silently take the last."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise ConstructorError(None, None, f"the name '{key.value}' stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_runfile(path: Path) -> dict[str, Any]:
    """The sections of a run file. Raises C006 where there is none, or what it holds is no sections."""
    if not path.exists():
        fix = "check the path, or name an objective: hone train sft model=... data=..."
        raise HoneError("C006", f"there is no run file '{path}'", fix=fix)
    try:
        document = _Strict(path.read_text("utf-8-sig")).get_single_data()
    except OSError as error:
        raise HoneError("C006", f"the run file cannot be read: {error.strerror}", where=str(path), fix="name a file of yours") from None
    except UnicodeDecodeError as error:
        raise HoneError("C006", "the run file is not UTF-8", where=f"{path}, byte {error.start + 1}", fix="save it as UTF-8") from None
    except RecursionError:
        raise HoneError("C006", "the run file is nested too deeply", where=str(path), fix=_SECTIONS) from None
    except yaml.YAMLError as error:
        raise _unreadable(error, path) from None
    if not isinstance(document, dict) or not document:
        raise HoneError("C006", "a run file is a list of sections with settings", where=str(path), fix=_SECTIONS)
    return document


def _unreadable(error: yaml.YAMLError, path: Path) -> HoneError:
    """C006 with the place and the kind of the mistake."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return HoneError("C006", f"the run file is not valid YAML: {str(error).partition(chr(10))[0]}", where=str(path), fix=_MEND)
    mark = error.problem_mark
    where = str(path) if mark is None else f"{path}:{mark.line + 1}:{mark.column + 1}"
    fix = next((hint for start, hint in _HINTS.items() if start in error.problem), _MEND)
    return HoneError("C006", f"the run file is not valid YAML: {error.problem}", where=where, fix=fix)
