"""Named points at which a test may kill this process: the seam behind every promise about crashes.

`HONE_FAULT="POINT [NTH] [SIGNAL]"` sends this process a signal (KILL unless named) when it reaches a point for the
n-th time (the first unless given): `HONE_FAULT="after_write:state.json 3"`, `HONE_FAULT="mid_step 2 TERM"`.

Points: `before_write:FILE`, `mid_write:FILE`, `after_write:FILE` around every file that is staged or replaced;
`before_rename`, `mid_rename` (the old folder has stepped aside),
`after_rename` around the moment a folder gets its name; `before_replace:FILE`, `after_replace:FILE`
the same for a single file; `before_prune`, `mid_prune`, `after_prune`; and, placed by those who own the phase,
`prepare`, `before_step`, `mid_step`, `after_step`, `evaluation`, `generation`, `stage`, `export`.
"""

from __future__ import annotations

import os
import signal
from functools import cache
from itertools import count


class _Fault:
    """A signal armed at one point."""

    def __init__(self, point: str, nth: str = "1", name: str = "KILL") -> None:
        self.point, self.nth, self.signal = point, int(nth), signal.Signals[f"SIG{name}"]
        self.visits = count(1)


@cache
def _armed() -> _Fault | None:
    words = os.environ.get("HONE_FAULT", "").split()
    return _Fault(*words) if words else None


def fault_point(point: str) -> None:
    """Say that a point has been reached. Does nothing unless `HONE_FAULT` names it."""
    fault = _armed()
    if fault is not None and fault.point == point and next(fault.visits) == fault.nth:
        os.kill(os.getpid(), fault.signal)
