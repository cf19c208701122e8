"""Files and folders that are either whole or not there: staged, flushed to the disk, hashed, and only then named."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone.core.faults import fault_point

MANIFEST = "manifest.json"
_LEFTOVER = re.compile(r"\.(tmp|old)-(.+)-(\d{1,7})")


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Replace a small file as a whole: a reader, or the next start after a crash, sees the old content or the new."""
    with staged_file(Path(path)) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def staged_file(final: Path) -> Iterator[Path]:
    """A path to write to; on success its file is flushed and takes the name `final`, on failure nothing is left."""
    temporary = _beside(final, "tmp")
    try:
        fault_point(f"before_write:{final.name}")
        yield temporary
        fault_point(f"after_write:{final.name}")
        sync(temporary)
        fault_point(f"before_replace:{final.name}")
        os.replace(temporary, final)
        fault_point(f"after_replace:{final.name}")
        sync(final.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_folder(final: Path, *, hashes: Mapping[str, str] | None = None) -> Iterator[Path]:
    """An empty folder to fill; on success it gets a manifest and the name `final`, on failure nothing is left.

    An older folder of that name is replaced. `hashes` are SHA-256 by file name, known to the caller from the writing
    (it may fill the mapping meanwhile); all other files are read back once to be hashed.
    """
    stage = _beside(final, "tmp")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield stage
        _write_manifest(stage, hashes or {})
        fault_point("before_rename")
        _give_name(stage, final)
        fault_point("after_rename")
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_hashed(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write a file piece by piece, flush it, and return the SHA-256 of what was meant to be written."""
    digest = hashlib.sha256()
    fault_point(f"before_write:{path.name}")
    with path.open("wb") as file:
        for piece in pieces:
            fault_point(f"mid_write:{path.name}")
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    fault_point(f"after_write:{path.name}")
    return digest.hexdigest()


def damage(folder: Path) -> str | None:
    """Why a folder is not what its manifest says ("state.json: hash differs"), or None if it is whole.

    Files that the manifest does not list are nobody's business.
    """
    try:
        listed = _read_manifest(folder)
        for name, entry in listed.items():
            if (folder / name).stat().st_size != entry["bytes"]:
                return f"{name}: size differs"
            if sha256_of(folder / name) != entry["sha256"]:
                return f"{name}: hash differs"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name}: missing"
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST}: not readable"
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in small pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a crash leaves a leftover for `sweep`, never half a folder under a good name."""
    aside = _beside(folder, "tmp")
    os.rename(folder, aside)
    fault_point("mid_prune")
    shutil.rmtree(aside, ignore_errors=True)


def sweep(folder: Path) -> list[str]:
    """Clear away what crashed processes left half-done in a folder; return the names. Only for the folder's one owner.

    A former process may have had our own process id (in containers it often has), so ours count as left over too.
    """
    swept = []
    for path in sorted(folder.glob(".*-*-*")):
        match = _LEFTOVER.fullmatch(path.name)
        if match is None or _someone_else_alive(int(match[3])):
            continue
        if match[1] == "old" and not (folder / match[2]).exists():
            os.rename(path, folder / match[2])
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        swept.append(path.name)
    return swept


def _beside(final: Path, kind: str) -> Path:
    return final.with_name(f".{kind}-{final.name}-{os.getpid()}")


def _someone_else_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_manifest(folder: Path, hashes: Mapping[str, str]) -> None:
    """List every file with its hash and size, and flush the files, the folders and the list itself."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        sync(path)
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = {"sha256": hashes.get(name) or sha256_of(path), "bytes": path.stat().st_size}
    write_hashed(folder / MANIFEST, [json.dumps({"files": files}, indent=1).encode()])
    sync(folder)


def _read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    listed = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
    return dict(listed.items())


def _give_name(stage: Path, final: Path) -> None:
    """Rename, and wait until the disk knows. A folder cannot replace another in one move: the old one steps aside."""
    aside = _beside(final, "old")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        os.rename(final, aside)
        fault_point("mid_rename")
    os.rename(stage, final)
    sync(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
