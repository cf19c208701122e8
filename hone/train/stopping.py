"""Ctrl-C and SIGTERM as a question that the loop asks between micro-batches, so that a stopped run saves first.

Exit status of a run: 0 it reached its end; 143 (SIGTERM) or 130 (Ctrl-C) it was stopped before, saved, and can be
resumed by the same command; 4 it could not save. A second Ctrl-C stops at once: the last checkpoint is whole anyway.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ONE_PRESS = 0.3
"""Seconds. torchrun passes Ctrl-C on to its workers, who have already had it from the terminal."""


class Stopper:
    """Whether somebody wants the run to stop. Ask `requested`; it costs nothing."""

    def __init__(self) -> None:
        self.requested = False
        self.exit_status = 0
        """What the process should exit with if it stops because of the request."""
        self.reason = ""
        self._pressed: float | None = None

    def stop(self, reason: str) -> None:
        """Ask from within the program, as a server does when a job is cancelled."""
        self.requested = True
        self.reason = self.reason or reason

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. Only remembers, so it is safe at any moment, in the middle of a save as well."""
        now = time.monotonic()
        if number == signal.SIGINT and self._pressed is not None and now - self._pressed > _ONE_PRESS:
            raise KeyboardInterrupt
        if number == signal.SIGINT and self._pressed is None:
            self._pressed = now
        self.exit_status = self.exit_status or 128 + number
        self.stop(signal.Signals(number).name)


@contextmanager
def stopping() -> Iterator[Stopper]:
    """Listen to SIGTERM and SIGINT while the context lasts; the previous handlers come back after it.

    Off the main thread Python cannot listen: there the stopper answers only to its own `stop`.
    """
    stopper = Stopper()
    if threading.current_thread() is not threading.main_thread():
        yield stopper
        return
    before = {number: signal.signal(number, stopper.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopper
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
