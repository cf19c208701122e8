"""Functions that may fail, hang or print are asked over pipes, in a process of their own that can be killed and replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hone
from hone.core.errors import HoneError
from hone.rollout.rewards.base import Fault, Reward, Score, Tools, Written
from hone.rollout.rewards.pipes import kill_group, read_some

START = 60.0
"""Seconds that a process may take to import what it needs."""


def guarded(target: str, tools: Tools, settings: Mapping[str, Any] | None = None) -> Reward:
    """A reward from `module:function` or `file.py:function`, called as `fn(answer, row, **settings)`.

    Where its first argument is called `answers` it is called once, `fn(answers, rows)`, and returns a number for each.
    Raises C040 for a function that is not there.
    """
    return _Guarded(target, tools, dict(settings or {}))


class _Guarded:
    """Asks one process after the other: one that hangs or dies is replaced."""

    def __init__(self, target: str, tools: Tools, settings: dict[str, Any]) -> None:
        self.target, self.tools, self.settings = target, tools, settings
        self._process: _Process | None = None
        self._open()

    def __call__(self, answers: Sequence[Written]) -> Sequence[Score]:
        if not self._open().many:
            return [_score(self._ask({"answer": w.text, "row": dict(w.row)}, self.tools.seconds)) for w in answers]
        request = {"answers": [w.text for w in answers], "rows": [dict(w.row) for w in answers]}
        found = self._ask(request, self.tools.seconds * max(1, len(answers)))
        if isinstance(found, Fault):
            return [found] * len(answers)
        if not isinstance(found, list) or len(found) != len(answers):
            got = f"{len(found)} scores" if isinstance(found, list) else f"{found!r:.60}"
            return [Fault("R002", f"asked about {len(answers)} answers, it returned {got}")] * len(answers)
        return [_score(each) for each in found]

    def _ask(self, request: Mapping[str, Any], seconds: float) -> Any:
        process = self._open()
        found = process.ask(request, seconds)
        if not process.alive:
            self._process = None
        return found

    def _open(self) -> _Process:
        if self._process is None:
            self._process = _Process(self.target, self.settings, self.tools)
        return self._process

    def __del__(self) -> None:
        if self._process is not None:
            self._process.end()


def _score(found: Any) -> Score:
    if isinstance(found, Fault):
        return found
    return float(found) if isinstance(found, int | float) else Fault("R001", f"it returned {found!r:.60}, not a number")


class _Process:
    """The parent's end of one running function."""

    def __init__(self, target: str, settings: Mapping[str, Any], tools: Tools) -> None:
        command = [sys.executable, "-m", "hone.rollout.rewards.child", target, json.dumps(settings)]
        paths = os.pathsep.join(filter(None, [str(Path(hone.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
        with open(tools.log or os.devnull, "ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": paths},
            )
        self._held = b""
        hello = self._answer(START)
        if isinstance(hello, Fault) or "error" in hello:
            self.end()
            what = hello.what if isinstance(hello, Fault) else hello["error"]
            fix = "def reward(answer, row): return 1.0 if ... else 0.0"
            raise HoneError("C040", f"the reward cannot be started: {what}", where=target, fix=fix)
        self.many: bool = hello["many"]

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def ask(self, request: Mapping[str, Any], seconds: float) -> Any:
        """What the function returned, or a Fault; after a timeout the process is gone."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request, default=str).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:
            return self._died()
        reply = self._answer(seconds)
        if isinstance(reply, Fault):
            return reply
        return Fault("R003", str(reply["error"])) if "error" in reply else reply["score"]

    def _answer(self, seconds: float) -> Any:
        """The next line of JSON, or a Fault."""
        assert self._child.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._held:
            read = read_some(self._child.stdout, until)
            if read is None:
                self.end()
                return Fault("R004", f"no answer within {seconds:g} seconds")
            if not read:
                return self._died()
            self._held += read
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)

    def _died(self) -> Fault:
        self.end()
        return Fault("R003", f"its process ended with status {self._child.returncode}")

    def end(self) -> None:
        """Kill it, and what it started."""
        kill_group(self._child)
