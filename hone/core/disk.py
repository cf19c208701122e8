"""Is there a place to write to, and is it large enough? Asked before a model is loaded, and again at every save."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from hone.core.errors import HoneError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def check_output(folder: Path, needed: int) -> None:
    """Make sure that a folder exists, can be written to, and has room for `needed` bytes.

    Raises F003 (too little room), F005 (not writable) or F006 (cannot be there at all).
    """
    probe = folder / f".tmp-probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"hone")
        probe.unlink()
    except OSError as error:
        raise fault_of(error, folder, needed) from None
    check_room(folder, needed)


def check_room(folder: Path, needed: int) -> None:
    """Raise F003 where less than `needed` bytes are free. The folder need not exist yet."""
    free = free_bytes(folder)
    if free < needed:
        raise HoneError("F003", f"the run needs {size(needed)} of disk and {size(free)} are free", where=str(folder), fix=_MAKE_ROOM)


def free_bytes(folder: Path) -> int:
    """Bytes that we may still write on the disk of a folder, or of its nearest parent that exists."""
    return shutil.disk_usage(next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))).free


def is_full(error: OSError) -> bool:
    """Whether an error of the operating system means that there is no room: disk, quota or file size limit."""
    return error.errno in _FULL


def fault_of(error: OSError, folder: Path, needed: int) -> HoneError:
    """The user's view of a failed write: F004 (full), F005 (not writable) or F006 (gone, or no folder)."""
    if is_full(error):
        what = f"no room to save: {size(needed)} are needed and {size(free_bytes(folder))} are free ({error.strerror})"
        return HoneError("F004", what, where=str(folder), fix=_MAKE_ROOM)
    if error.errno in _READ_ONLY:
        what, fix = f"the folder cannot be written to ({error.strerror})", "choose another with output.folder=..."
        return HoneError("F005", what, where=str(folder), fix=fix)
    what, fix = f"the folder is gone or is no folder ({error.strerror})", "check the path and the disk that it is on"
    return HoneError("F006", what, where=str(folder), fix=fix)


def size(n: int) -> str:
    """Bytes in decimal units, for messages."""
    for limit, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n >= limit:
            return f"{n / limit:.1f} {unit}"
    return f"{n} bytes"


_MAKE_ROOM = "free some space, keep fewer checkpoints, or choose a folder on another disk; the run resumes by itself"
