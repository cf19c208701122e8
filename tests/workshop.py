"""Imports everything once, builds the checks of settings, then forks a process for each order on stdin, which runs `hone` until it ends or dies.

An order is a JSON line: words (the command line), fault (for HONE_FAULT), kill_after (seconds, or null) and log (a file).
The answer is how the process ended: its exit status, or minus the number of the signal that killed it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib import import_module

import torch

from hone.cli.main import main as hone_main
from hone.core import faults
from hone.recipe.settings import resolve
from hone.recipe.words import read

LATE = (
    "hone.cli.train", "hone.cli.show", "hone.cli.sweep", "hone.cli.style", "hone.data.jinja", "hone.recipe.run", "hone.report.tables",
    "rich.table", "transformers.generation.utils", "transformers.models.llama.modeling_llama", "transformers.models.qwen3.modeling_qwen3",
    "transformers.processing_utils", "zoneinfo",
)  # fmt: skip
"""What a run imports when it needs it; here before the fork, so that every child starts at once."""


def child(order: dict[str, object]) -> None:
    """Run one command line in this process and end it."""
    log = os.open(str(order["log"]), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["HONE_FAULT"] = str(order["fault"])
    faults._armed.cache_clear()
    words = order["words"]
    assert isinstance(words, list)
    status = hone_main(words)
    sys.stdout.flush()
    os._exit(status)


def main() -> None:
    torch.set_num_threads(1)
    for name in LATE:
        import_module(name)
    for objective in ("sft", "dpo", "grpo"):
        more = ["rollout.rewards=number"] if objective == "grpo" else []
        resolve(read(objective, ["model=a/b", "data=rows.jsonl", *more])[0])
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            child(order)
        if order["kill_after"] is not None:
            time.sleep(order["kill_after"])
            os.kill(pid, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
