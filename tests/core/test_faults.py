"""The seam that kill tests use fires where it is told to, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hone.core.faults import fault_point

CODE = """
from hone.core.faults import fault_point
for i in range(4):
    fault_point("mid_step")
    fault_point("after_step")
    print(i, flush=True)
"""


def run(fault: str) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "HONE_FAULT": fault}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    return done.returncode, "".join(done.stdout.split())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("", (0, "0123")), ("mid_step", (-9, "")), ("mid_step 3", (-9, "01")), ("after_step 2 TERM", (-15, "0")), ("elsewhere", (0, "0123"))],
)
def test_the_process_ends_where_it_is_told_to(fault: str, expected: tuple[int, str]) -> None:
    assert run(fault) == expected


def test_unarmed_it_costs_nothing() -> None:
    started = time.perf_counter()
    for _ in range(10_000):
        fault_point("mid_step")
    assert time.perf_counter() - started < 0.1
