"""Imports torch once and then forks a process for every order on stdin, which saves checkpoints until it is killed.

An order is a JSON line: folder, fault (for HONE_FAULT), count (steps to write) and kill_after (seconds, or null).
The answer is how the process ended: 0 with all steps saved, 143 after a save that SIGTERM asked to be the last,
minus the number of the signal that killed it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from hone.train import checkpoint
from hone.train.stopping import stopping


def tensors_of(step: int) -> dict[str, Tensor]:
    """Tensors that tell their step, large enough that a save takes a while."""
    return {
        "param/a": torch.full((256, 512), float(step)),
        "exp_avg/a": torch.full((256, 512), -float(step), dtype=torch.bfloat16),
        "step/a": torch.tensor(float(step)),
    }


def save_on(folder: Path, count: int) -> None:
    """Take up the run where it is, save `count` more steps or until told to stop, and end the process."""
    found = checkpoint.latest(folder, tell=print_nothing)
    first = found.step + 1 if found else 1
    with stopping() as stopper:
        for step in range(first, first + count):
            checkpoint.write(folder, step, tensors_of(step), {"tokens": 10 * step}, tell=print_nothing)
            if stopper.requested:
                break
    os._exit(stopper.exit_status)


def print_nothing(_: str) -> None:
    """Nobody listens here."""


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.environ["HONE_FAULT"] = order["fault"]
            save_on(Path(order["folder"]), order["count"])
        if order["kill_after"] is not None:
            time.sleep(order["kill_after"])
            os.kill(pid, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
