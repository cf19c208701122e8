"""The program that runs what a model wrote: limits first, then namespaces without network, then the program. It imports nothing of ours.

`python -I -S jail.py ORDER SECONDS MEGABYTES`, in a folder with program.py. ORDER is "values N" (print the N probes' values as a JSON
list of their representations), "dialogue" (be the program) or "isolated" (say whether the network is cut off).
"""

from __future__ import annotations

import ctypes
import json
import os
import runpy
import signal
import sys

LONGEST = 100_000
"""Characters of one value."""
_NEW = 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000  # user, process, network and message namespaces
_PARENT_DEATH = 1


def isolate() -> bool:
    """Leave the machine's network and processes behind, where the system allows it; the next child is the first of the new world."""
    try:
        return ctypes.CDLL(None, use_errno=True).unshare(_NEW) == 0
    except (OSError, AttributeError):
        return False


def limit(seconds: int, megabytes: int) -> None:
    """Bound what this process may use: time, memory, files, processes."""
    import resource

    bounds = {
        resource.RLIMIT_CPU: seconds + 1, resource.RLIMIT_AS: megabytes << 20, resource.RLIMIT_FSIZE: 1 << 20,
        resource.RLIMIT_NOFILE: 64, resource.RLIMIT_CORE: 0, resource.RLIMIT_NPROC: 64,
    }  # fmt: skip
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def values(count: int) -> None:
    """Run program.py, call its probes, and tell what they gave. Whatever else it prints is lost."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    found: list[str | None] = [None] * count
    try:
        names = runpy.run_path("program.py")
        for i in range(count):
            found[i] = told(names[f"_probe_{i}"])
    except BaseException:  # the program is not ours: it may raise anything, SystemExit included
        pass
    out.write(json.dumps(found))
    out.flush()
    os._exit(0)


def told(probe: object) -> str | None:
    """A value's representation, or nothing where the probe fails."""
    try:
        text = repr(probe())  # type: ignore[operator]
        return text if len(text) <= LONGEST else None
    except BaseException:  # as above
        return None


def main(order: str, seconds: int, megabytes: int) -> None:
    """Prepare the jail and run the order in a child of its own."""
    alone = isolate()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGKILL)
    if order == "isolated":
        print("yes" if alone else "no", flush=True)
        os._exit(0)
    limit(seconds, megabytes)
    if order == "dialogue":
        os.execve(sys.executable, [sys.executable, "-I", "-S", "program.py"], {})
    values(int(order.split()[1]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
