"""Which layers a method works on: chosen by name, by pattern and by block, the same way for all methods."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hone.core.errors import HoneError
from hone.core.registry import nearest

Names = tuple[str, ...] | str
ALL = "all-linear"


def choose(
    paths: Iterable[str], targets: Names, *, every: Iterable[str], exclude: Iterable[str] = (), layers: tuple[int, ...] | None = None
) -> list[str]:
    """Those of the paths that are meant, in order; `every` are the paths of all modules of the model.

    Raises M004, with near names, for a target, an exclusion or a block that is nowhere: it would quietly do nothing.
    """
    if not targets:
        raise HoneError(
            "M004", "the list of targets is empty, so no layer would be adapted", where="tuning.targets", fix=f"write {ALL}, or names"
        )
    known, wanted, unwanted = list(paths), () if targets == ALL else (targets,) if isinstance(targets, str) else targets, tuple(exclude)
    _check_names(wanted, known, known, "no layer that could be chosen here matches '{}'", "tuning.targets")
    _check_names(unwanted, [*known, *every], known, "nothing in this model matches '{}', so nothing would be excluded", "tuning.exclude")
    _check_blocks(layers or (), known)
    found = [path for path in known if not wanted or any(matches(pattern, path) for pattern in wanted)]
    found = [path for path in found if not any(matches(pattern, path) for pattern in unwanted)]
    found = [path for path in found if layers is None or block_of(path) in layers]
    if not found:
        what = "targets, exclude and layers together leave no layer to adapt"
        raise HoneError("M004", what, where="tuning", fix="exclude less, or name other targets or layers")
    return found


def _check_names(patterns: tuple[str, ...], paths: list[str], known: list[str], what: str, where: str) -> None:
    for pattern in patterns:
        if not any(matches(pattern, path) for path in paths):
            near = nearest(pattern.rpartition(".")[2], {path.rpartition(".")[2] for path in known})
            raise HoneError("M004", what.format(pattern), where=where, fix=near)


def _check_blocks(layers: tuple[int, ...], known: list[str]) -> None:
    blocks = {block_of(path) for path in known} - {None}
    for index in layers:
        if index not in blocks:
            what = f"this model has no block {index}; its {len(blocks)} blocks count from 0"
            raise HoneError("M004", what, where="tuning.layers", fix=f"the last one is {len(blocks) - 1}")


def block_of(path: str) -> int | None:
    """The block that a path lies in: its first number, for later ones are experts."""
    found = re.search(r"\.(\d+)\.", path)
    return None if found is None else int(found[1])


def matches(pattern: str, path: str) -> bool:
    """A plain name is the end of the path; anything else is a regular expression on the whole path."""
    if path == pattern or path.endswith(f".{pattern}"):
        return True
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error as error:
        raise HoneError(
            "M004", f"'{pattern}' is no name and no valid pattern ({error})", where="tuning.targets", fix="write q_proj, or .*_proj"
        ) from None


def is_inside(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter lies in one of the modules, or modules in them, that are meant."""
    parts, wanted = name.split("."), tuple(modules)
    return any(matches(pattern, ".".join(parts[:end])) for end in range(1, len(parts)) for pattern in wanted)
