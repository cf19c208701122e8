"""The first signal asks, the second Ctrl-C interrupts, and the status tells how a run ended."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from hone.train.stopping import Stopper, stopping

CHILD = """
import sys, time
from hone.train.stopping import stopping
with stopping() as stopper:
    print("running", flush=True)
    while not stopper.requested:
        time.sleep(0.01)
    print("saving", flush=True)
    time.sleep(float(sys.argv[1]))
    print("saved", stopper.reason, flush=True)
sys.exit(stopper.exit_status)
"""


def start(saving: float, terminal: int) -> subprocess.Popen[bytes]:
    """The child in a session of its own, with `terminal` as its controlling terminal, as a person's shell has it."""

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CHILD, str(saving)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=terminal, stdout=pipe, stderr=pipe, env=environment, preexec_fn=take_terminal)
    assert child.stdout and child.stdout.readline() == b"running\n"
    return child


def test_sigterm_lets_the_run_save() -> None:
    ours, theirs = pty.openpty()
    child = start(0.1, theirs)
    child.send_signal(signal.SIGTERM)
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=10)
    assert out == b"saving\nsaved SIGTERM\n" and child.returncode == 143
    os.close(ours)
    os.close(theirs)


def test_ctrl_c_in_a_terminal_lets_the_run_save() -> None:
    ours, theirs = pty.openpty()
    child = start(0.1, theirs)
    os.write(ours, b"\x03")
    out, _ = child.communicate(timeout=10)
    assert out == b"saving\nsaved SIGINT\n" and child.returncode == 130
    os.close(ours)
    os.close(theirs)


def test_ctrl_c_twice_stops_at_once() -> None:
    ours, theirs = pty.openpty()
    child = start(30, theirs)
    os.write(ours, b"\x03")
    assert child.stdout and child.stdout.readline() == b"saving\n"
    time.sleep(0.35)
    os.write(ours, b"\x03")
    out, errors = child.communicate(timeout=10)
    assert out == b"" and b"KeyboardInterrupt" in errors and child.returncode == -signal.SIGINT
    os.close(ours)
    os.close(theirs)


def test_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stopping() as stopper:
        assert signal.getsignal(signal.SIGTERM) == stopper.handle
        assert not stopper.requested and stopper.exit_status == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.requested and stopper.exit_status == 143
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_one_press_that_arrives_twice_is_one_press() -> None:
    stopper = Stopper()
    stopper.handle(signal.SIGINT, None)
    stopper.handle(signal.SIGINT, None)
    assert stopper.requested and stopper.exit_status == 130
    time.sleep(0.31)
    with pytest.raises(KeyboardInterrupt):
        stopper.handle(signal.SIGINT, None)


def test_a_thread_can_be_stopped_from_within() -> None:
    reasons: list[str] = []

    def job() -> None:
        with stopping() as stopper:
            stopper.stop("job cancelled")
            reasons.append(stopper.reason)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert reasons == ["job cancelled"] and signal.getsignal(signal.SIGTERM) is before
