"""The examples run, learn, and stay short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from examples import loop_dpo, loop_grpo, loop_sft, till

FOLDER = Path(__file__).parents[2] / "examples"


def test_loop_sft_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert loop_sft.main(steps=21) < 1.5
    assert "->" in capsys.readouterr().out


def test_loop_grpo_is_rewarded(capsys: pytest.CaptureFixture[str]) -> None:
    rewards = loop_grpo.main(steps=3, taught_steps=8)
    assert len(rewards) == 3 and all(0 <= reward <= 1 for reward in rewards)
    assert "mean reward" in capsys.readouterr().out


def test_the_till_pays(capsys: pytest.CaptureFixture[str]) -> None:
    assert till.main() == pytest.approx(1.2)
    assert "12 coins" in capsys.readouterr().out


def test_loop_dpo_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert loop_dpo.main(steps=13) > 0.8
    assert "loss 0.693" in capsys.readouterr().out


def test_loop_custom_runs_an_objective_of_its_own() -> None:
    """In a process of its own, for it adds to the registry."""
    root = Path(__file__).parents[2]
    script = "from examples import loop_custom; assert loop_custom.main(steps=3) >= 0"
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'most': 2.0" in done.stdout


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_screen_or_so(path: Path) -> None:
    code = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    assert len(code) <= 60
