"""Two processes never train in one folder, and a dead one never stands in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.core.errors import HoneError
from hone.train.lock import run_lock

HOLD = """
import sys
from pathlib import Path
from hone.train.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_process_is_told_who_holds_the_folder(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(HoneError, match=rf"pid {other.pid}\b") as caught, run_lock(tmp_path):
        pass
    assert caught.value.code == "F002"
    assert other.poll() is None


def test_a_killed_holder_holds_nothing(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with run_lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_it_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with run_lock(tmp_path), pytest.raises(HoneError, match=f"pid {os.getpid()}"), run_lock(tmp_path):
            pass


def test_importing_the_lock_is_light() -> None:
    code = "import sys, hone.train.lock, hone.train.stopping; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])})
