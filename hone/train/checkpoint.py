"""Checkpoints that are whole or not there: what has a name is complete, hashed and holds no code.

A checkpoint is a folder `checkpoints/step-000123` of a run, with `tensors.safetensors` (weights that move and the
optimiser's moments), `state.json` (the step and whatever the loop counts) and `manifest.json` (size and SHA-256).
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from hone.core import disk
from hone.core.errors import HoneError
from hone.core.faults import fault_point
from hone.core.files import damage, remove_folder, staged_folder, sweep, write_hashed
from hone.models import tensorfile

FOLDER, TENSORS, STATE, FORMAT = "checkpoints", "tensors.safetensors", "state.json", 1
WAITS = (1.0, 4.0, 16.0)
"""Seconds between the attempts to save on a full disk."""
_NAME = re.compile(r"step-(\d{6,})")
_SLACK = 1 << 16

Tell = Callable[[str], None]
"""Takes a sentence for the user and the diary."""


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole."""

    path: Path
    step: int


def write(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    tell: Tell,
    keep: int = 2,
    waits: Sequence[float] = WAITS,
) -> Checkpoint:
    """Save a step of the run in `folder`, then forget all but the last `keep` checkpoints and the best one.

    The best is the step named by `state["best"]["step"]`, if any. On a full disk the attempt leaves nothing behind, is
    repeated after each of `waits` seconds, and ends in F004. Raises F005 or F006 where the folder cannot be written.
    """
    needed = needed_bytes(tensors)
    path = _path(folder, step)
    for wait in (*waits, None):
        try:
            path = _save(folder, step, tensors, state)
            break
        except OSError as error:
            fault = disk.fault_of(error, folder, needed)
            if wait is None or not disk.is_full(error):
                raise fault from None
            tell(f"checkpoint step {step}: {fault.what}; trying again in {wait:g} s")
            time.sleep(wait)
    prune(folder, step, keep=keep, best=(state.get("best") or {}).get("step"))
    return Checkpoint(path, step)


def latest(folder: Path, *, tell: Tell) -> Checkpoint | None:
    """The newest checkpoint that is whole, found by looking at all of them. None where a run has none yet.

    Says which damaged ones it passes over and why. Raises F001 where there are checkpoints and none is whole.
    """
    bad: list[str] = []
    for step, path in reversed(_named(folder)):
        reason = _damage(path, step)
        if reason is None:
            for finding in bad:
                tell(f"{finding}, falling back to {path.name}")
            return Checkpoint(path, step)
        bad.append(f"checkpoint {path.name} is damaged ({reason})")
    if bad:
        raise HoneError("F001", f"no checkpoint is whole: {'; '.join(bad)}", where=str(folder / FOLDER), fix="start over with --fresh")
    return None


def at(folder: Path, step: int) -> Checkpoint:
    """The checkpoint of one step, such as the best. Raises F001 where it is missing or damaged."""
    path = _path(folder, step)
    reason = _damage(path, step) if path.is_dir() else "there is none"
    if reason is not None:
        fix = "resume the run, it falls back to a whole one"
        raise HoneError("F001", f"checkpoint {path.name} cannot be used ({reason})", where=str(path), fix=fix)
    return Checkpoint(path, step)


def read(checkpoint: Checkpoint) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the state of a checkpoint that `latest` or `at` has found whole."""
    return load_file(checkpoint.path / TENSORS), json.loads((checkpoint.path / STATE).read_text("utf-8"))


def prune(folder: Path, step: int, *, keep: int, best: int | None = None) -> None:
    """Remove all checkpoints but the last `keep` up to `step` and the best.

    Those after `step` go too: the run was taken up before them because they were damaged, so they are not its future.
    """
    assert keep >= 1
    fault_point("before_prune")
    past = [s for s, _ in _named(folder) if s <= step]
    kept = {*past[-keep:], best}
    for old, path in _named(folder):
        if old not in kept:
            remove_folder(path)
    fault_point("after_prune")


def tidy(folder: Path) -> list[str]:
    """Clear away what crashes left in a run folder and among its checkpoints. For the holder of the run's lock."""
    return sweep(folder) + sweep(folder / FOLDER)


def start_over(folder: Path) -> None:
    """Remove all checkpoints of a run, for `--fresh`."""
    for _, path in _named(folder):
        remove_folder(path)


def needed_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Room that one checkpoint takes. A run needs `keep` + 2 of them: those kept, the best, and the one being written."""
    return tensorfile.size(tensors) + _SLACK


def _save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> Path:
    (folder / FOLDER).mkdir(exist_ok=True)
    if disk.free_bytes(folder) < needed_bytes(tensors):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    full = {**state, "step": step, "format": FORMAT, "versions": {name: version(name) for name in ("torch", "transformers")}}
    path = _path(folder, step)
    hashes: dict[str, str] = {}
    with staged_folder(path, hashes=hashes) as stage:
        hashes[TENSORS] = write_hashed(stage / TENSORS, tensorfile.pieces(tensors))
        hashes[STATE] = write_hashed(stage / STATE, [json.dumps(full, indent=1, allow_nan=False).encode()])
    return path


def _damage(path: Path, step: int) -> str | None:
    """Why a named checkpoint cannot be used: its bytes, or its being something else than its name says."""
    reason = damage(path)
    if reason is not None:
        return reason
    state = json.loads((path / STATE).read_text("utf-8"))
    if state["format"] != FORMAT:
        return f"{STATE}: format {state['format']}, this version reads {FORMAT}"
    return None if state["step"] == step else f"{STATE}: it is of step {state['step']}"


def _named(folder: Path) -> list[tuple[int, Path]]:
    """All checkpoint folders that have a name, oldest first."""
    matches = [(_NAME.fullmatch(path.name), path) for path in (folder / FOLDER).glob("step-*") if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in matches if match)


def _path(folder: Path, step: int) -> Path:
    return folder / FOLDER / f"step-{step:06d}"
