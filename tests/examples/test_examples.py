"""The examples run, learn, and stay short."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import loop_grpo, loop_sft, till

FOLDER = Path(__file__).parents[2] / "examples"


def test_loop_sft_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert loop_sft.main(steps=21) < 1.5
    assert "->" in capsys.readouterr().out


def test_loop_grpo_is_rewarded(capsys: pytest.CaptureFixture[str]) -> None:
    rewards = loop_grpo.main(steps=6)
    assert len(rewards) == 6 and all(0 <= reward <= 1 for reward in rewards)
    assert "mean reward" in capsys.readouterr().out


def test_the_till_pays(capsys: pytest.CaptureFixture[str]) -> None:
    assert till.main() == pytest.approx(1.2)
    assert "12 coins" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_screen_or_so(path: Path) -> None:
    code = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    assert len(code) <= 60
