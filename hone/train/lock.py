"""One run folder, one process: a lock that the operating system releases even when its holder is killed."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone.core.errors import HoneError

LOCK = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Own a run folder while the context lasts. Raises F002, naming the process, where another owns it.

    The file stays; only the lock on it counts. It holds the owner's process id, for that message.
    """
    with (folder / LOCK).open("a+", encoding="ascii") as file:
        _acquire(file.fileno(), folder)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _acquire(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = (folder / LOCK).read_text("ascii").strip() or "not known yet"
        fix = "wait for it, stop it, or choose another folder with output.folder=..."
        raise HoneError("F002", f"another process (pid {pid}) is training in this folder", where=str(folder), fix=fix) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        fix = "choose a folder on a local disk with output.folder=..., or have the network disk mounted with locks"
        raise HoneError("F008", f"the disk of this folder cannot lock files ({error.strerror})", where=str(folder), fix=fix) from None
