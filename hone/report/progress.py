"""The live line of a running training: where it is, whether it learns, how fast, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from hone.report.numbers import Average, brisk, clock, finite, loss_text, short, size
from hone.report.terminal import tame

SHORTEST_BAR, LONGEST_BAR = 8, 36


class Part(NamedTuple):
    """A figure of the line. When the terminal is narrow, high ranks are left out first."""

    rank: int
    text: str
    style: str


class Progress:
    """One line that fits any width from 60 columns on; away from a terminal, a plain line every few seconds and at the end.

    Use as a context manager and call `update` after every step with the step's metrics, and after an evaluation with its own.
    """

    def __init__(
        self, total_steps: int, *, console: Console | None = None, every: float = 10.0, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.every, self.timer = total_steps, every, timer
        self.console = console or Console()
        lively = self.console.is_terminal and not self.console.is_dumb_terminal
        self.live = Live(self, console=self.console, refresh_per_second=4) if lively else None
        self.step = 0
        self.first: tuple[int, float] | None = None
        self.opened = self.printed = timer()
        self.ended: float | None = None
        self.loss, self.speed = Average(0.9), Average(0.9)
        self.latest: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.opened = self.timer()
        if self.live is not None:
            self.live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.ended = self.timer()
        if self.live is not None:
            self.live.stop()
        else:
            self._print_line()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a step: loss, eval_loss, tokens_per_second, memory_bytes, learning_rate; all optional."""
        self.step, opening = step, self.first is None
        self.first = self.first or (step, self.timer())
        self.latest |= {name: number for name, value in metrics.items() if (number := finite(value)) is not None}
        for name, average in (("loss", self.loss), ("tokens_per_second", self.speed)):
            if (value := finite(metrics.get(name))) is not None:
                average.add(value)
        if self.live is None and (opening or self.timer() - self.printed >= self.every):
            self._print_line()

    def note(self, text: str) -> None:
        """Print a line above the live one."""
        self._print(tame(text))

    @property
    def seconds_left(self) -> float | None:
        """Steps left times the seconds that a step has taken so far, evaluations included."""
        if self.first is None:
            return None
        step, at = self.first
        now = self.timer()
        pace = (now - at) / (self.step - step) if self.step > step else at - self.opened
        return pace * (self.total - self.step)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head, parts = self._head(), self._parts()
        room = options.max_width - len(head) - 1 - SHORTEST_BAR
        kept: list[Part] = []
        for part in sorted(parts, key=lambda p: p.rank):
            if room >= len(part.text) + 2:
                kept.append(part)
                room -= len(part.text) + 2
        line = Text(f"{head} ", no_wrap=True, overflow="crop")
        line.append_text(self._bar(min(LONGEST_BAR, SHORTEST_BAR + room), plain=options.ascii_only))
        for part in parts:
            if part in kept:
                line.append("  ").append(part.text, part.style)
        yield line

    def _head(self) -> str:
        total = f"{self.total:,}"
        return f"{self.step:{len(total)},}/{total}"

    def _parts(self) -> list[Part]:
        """The figures in the order of reading."""
        known = self.latest
        left, parts = self.seconds_left, []
        if self.loss.known:
            parts.append(Part(0, f"loss {loss_text(self.loss.value)}", "bold"))
        if "eval_loss" in known:
            parts.append(Part(2, f"held out {loss_text(known['eval_loss'])}", ""))
        if self.speed.known:
            parts.append(Part(3, f"{brisk(self.speed.value)} tok/s", ""))
        if "memory_bytes" in known:
            parts.append(Part(4, size(known["memory_bytes"]), "dim"))
        if "learning_rate" in known:
            parts.append(Part(5, f"lr {short(known['learning_rate'])}", "dim"))
        if self.ended is not None:
            parts.append(Part(1, f"in {clock(self.ended - self.opened)}", ""))
        elif left is not None:
            parts.append(Part(1, f"{clock(left)} left", ""))
        return parts or [Part(0, "starting", "dim")]

    def _bar(self, width: int, *, plain: bool) -> Text:
        done = round(width * self.step / max(1, self.total))
        full, rest = ("#", "-") if plain else ("━", "─")
        return Text.assemble((full * done, "cyan"), (rest * (width - done), "dim"))

    def _print_line(self) -> None:
        self.printed = self.timer()
        self._print(f"step {self._head()}  " + "  ".join(part.text for part in self._parts()))

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
