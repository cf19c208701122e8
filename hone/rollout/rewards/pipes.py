"""Reading from other processes with a deadline and a limit, and ending them with all that they started."""

from __future__ import annotations

import os
import select
import subprocess
import time
from contextlib import suppress
from typing import IO


def read_some(pipe: IO[bytes], until: float) -> bytes | None:
    """What can be read before `until` (monotonic seconds): b"" at the pipe's end, None where nothing came in time."""
    ready, _, _ = select.select([pipe], [], [], max(0.0, until - time.monotonic()))
    return os.read(pipe.fileno(), 1 << 16) if ready else None


def read_all(pipe: IO[bytes] | None, until: float, most: int) -> bytes | None:
    """Everything up to the pipe's end; None where that does not come in time or is longer than `most` bytes."""
    assert pipe is not None
    held = b""
    while len(held) <= most:
        read = read_some(pipe, until)
        if not read:
            return held if read == b"" else None
        held += read
    return None


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a process that leads a session of its own, and all in it, and close its pipes."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, 9)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()
