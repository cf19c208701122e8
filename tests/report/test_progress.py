from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from hone.report.progress import Progress

METRICS = {"loss": 0.5, "tokens_per_second": 5600.0, "memory_bytes": 6.1e8, "learning_rate": 2e-4}


class Hand:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def line_of(progress: Progress, width: int, *, encoding: str = "utf-8") -> str:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)
    with console.capture() as capture:
        console.print(progress)
    return capture.get().rstrip("\n")


def plain(width: int = 200) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=width), file


def halfway(total: int = 40) -> Progress:
    hand = Hand()
    progress = Progress(total, console=plain()[0], timer=hand)
    for step in range(1, total // 2 + 1):
        hand.now += 2.0
        progress.update(step, METRICS | {"eval_loss": 0.6})
    return progress


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
def test_the_line_fits_and_keeps_the_most_important(width: int) -> None:
    line = line_of(halfway(), width)
    assert "\n" not in line and len(line) <= width
    assert line.startswith("20/40 ") and "loss 0.500" in line and "━" in line
    assert ("0:40 left" in line) == (width >= 60)
    assert ("held out 0.600" in line) == (width >= 60)
    assert all(words in line for words in ("5.6k tok/s", "610\N{NO-BREAK SPACE}MB", "lr 2e-4")) == (width >= 120)


def test_half_of_the_bar_is_full_at_half_time() -> None:
    line = line_of(halfway(), 120)
    assert line.count("━") == line.count("─") == 18


def test_a_console_without_unicode_gets_a_bar_too() -> None:
    assert "####" in line_of(halfway(), 80, encoding="ascii")


def test_eta_counts_from_the_first_step_of_this_process() -> None:
    hand = Hand()
    progress = Progress(100, console=plain()[0], timer=hand)
    hand.now += 30.0
    progress.update(61, METRICS)
    assert progress.seconds_left == pytest.approx(30 * 39)
    for step in range(62, 71):
        hand.now += 1.0
        progress.update(step, METRICS)
    assert progress.seconds_left == pytest.approx(30.0)


def test_away_from_a_terminal_it_prints_plain_lines_now_and_then() -> None:
    hand = Hand()
    console, file = plain()
    with Progress(40, console=console, every=10.0, timer=hand) as progress:
        for step in range(1, 41):
            hand.now += 1.0
            progress.update(step, METRICS)
            if step == 15:
                progress.note("checkpoint [bold]15[/bold]\x1b[2J")
    lines = file.getvalue().splitlines()
    heads = [line.split("  loss")[0] for line in lines]
    assert lines[0].startswith("step  1/40  loss 0.500  5.6k tok/s")
    assert heads == ["step  1/40", "step 11/40", "checkpoint [bold]15[/bold]␛[2J", "step 21/40", "step 31/40", "step 40/40"]
    assert lines[-1].endswith("in 0:40") and "\x1b" not in file.getvalue()


def test_a_terminal_gets_one_live_line_and_notes_above_it() -> None:
    file = io.StringIO()
    with Progress(4, console=Console(file=file, width=80, force_terminal=True)) as progress:
        for step in range(1, 5):
            progress.update(step, METRICS)
        progress.note("half")
    shown = file.getvalue()
    assert "half" in shown and "4/4" in shown and "in 0:00" in shown and "\x1b[" in shown


def test_a_loss_that_is_not_finite_does_not_spoil_the_average() -> None:
    progress = Progress(3, console=plain()[0])
    for step, loss in enumerate((2.0, math.nan, 2.0), start=1):
        progress.update(step, {"loss": loss})
    assert "loss 2.000" in line_of(progress, 80)


def test_before_the_first_step_it_says_so() -> None:
    assert "starting" in line_of(Progress(10, console=plain()[0]), 60)
