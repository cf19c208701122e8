from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType
from rich.style import Style

from hone.report.tables import before_after, coloured, settings_table
from hone.report.terminal import tame, visible


def measure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


TOKENS = ["<|user|>", "Hi", "\n", "<|bot|>", "Good", " day", "<|end|>", "\n"]
WEIGHTS = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]
MEASURED = {
    "tasks": [
        {"task": "facts", "metric": "exact_match", "n": 80, "before": measure(0.1, 0.05, 0.2), "after": measure(0.9, 0.8, 0.95)},
        {"task": "till", "metric": "accuracy", "n": 60, "after": measure(0.5, 0.4, 0.6)},
        {"task": "news", "metric": "exact_match", "n": 10, "before": measure(0.3, 0.1, 0.5), "after": measure(0.4, 0.2, 0.6)},
    ]
}


def colourless() -> Console:
    return Console(file=io.StringIO(), width=100)


def colourful() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor", no_color=False)


def shown(thing: RenderableType, *, width: int = 100, encoding: str = "utf-8") -> str:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)
    with console.capture() as capture:
        console.print(thing)
    return capture.get().replace("\N{NO-BREAK SPACE}", " ")


def test_learned_tokens_are_coloured() -> None:
    text = coloured(TOKENS, WEIGHTS, console=colourful())
    body = text.plain.index("Good")
    style = Style.combine(Style.parse(str(span.style)) for span in text.spans if span.start <= body < span.end)
    context = Style.combine(Style.parse(str(span.style)) for span in text.spans if span.start <= 0 < span.end)
    assert style.bold and style.color is not None and context.dim and context.color is None
    assert "⟦" not in text.plain and "learned 3 of 8 tokens" in text.plain


def test_without_colours_learned_tokens_stand_in_brackets() -> None:
    for console in (colourless(), Console(file=io.StringIO(), force_terminal=True, no_color=True)):
        assert coloured(TOKENS, WEIGHTS, console=console).plain.startswith("<|user|>Hi↵\n<|bot|>⟦Good day<|end|>⟧↵\n\n⟦learned⟧ 3 of 8")


def test_brackets_close_at_the_end_and_between_kinds() -> None:
    text = coloured(["a", "b", "c"], [0.0, 1.0, 0.5], console=colourless()).plain
    assert text.startswith("a⟦b⟧⟦c⟧\n\n") and "⟦partly⟧" in text
    assert coloured([], [], console=colourless()).plain.strip().startswith("⟦learned⟧ 0 of 0")


def test_data_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[31mb\x07\r\x9b\x7f\ud800\t你") == "a␛[31mb␇␍���\t你"
    assert tame("a\nb\x1b") == "a\nb␛"
    out = shown(before_after({"tasks": [{"task": "\x1b[2J", "after": measure(0.5, 0.4, 0.6)}]}))
    out += shown(coloured(["\x1b]0;title\x07", "[bold]x[/bold]"], [0.0, 1.0], console=colourless()))
    assert "\x1b" not in out and "[bold]x[/bold]" in out


@pytest.mark.parametrize("width", [60, 100])
def test_scores_stand_in_one_table_with_intervals_and_bars(width: int) -> None:
    out = shown(before_after(MEASURED), width=width)
    lines = out.splitlines()
    assert max(len(line) for line in lines) <= width
    for words in ("facts", "10.0 %", "5.0 to 20.0 %", "90.0 %", "80.0 to 95.0 %", "not measured", "average", "65.0 %"):
        assert words in out, words
    before = next(line for line in lines if "5.0 to 20.0" in line)
    after = next(line for line in lines if "80.0 to 95.0" in line)
    assert after.count("█") > 5 * max(1, before.count("█")) and "░" in before


def test_bars_without_unicode() -> None:
    assert "####" in shown(before_after(MEASURED), encoding="ascii")


def test_nothing_measured_is_said() -> None:
    assert "Nothing was measured" in shown(before_after({}))


def test_chosen_settings_stand_with_their_reasons() -> None:
    reasons = {"tuning.rank": "850 [rows]", "optim.learning_rate": "usual"}
    resolved = {"tuning": {"rank": 16, "alpha": 32.0}, "optim": {"learning_rate": 2e-4}, "reasons": reasons}
    out = shown(settings_table(resolved))
    assert "tuning.rank" in out and "16" in out and "850 [rows]" in out and "0.0002" in out and "alpha" not in out
    assert "nothing had to be chosen" in shown(settings_table({"tuning": {"rank": 16}}))
