"""A process that is killed at any moment of a save leaves a run that goes on from a whole checkpoint."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hone.train import checkpoint

HERE = Path(__file__).parent
FILES = ("tensors.safetensors", "state.json", "manifest.json")
BEFORE_NAMING = [f"{when}_write:{name}" for name in FILES for when in ("before", "mid", "after")] + ["before_rename"]
KILLED, STOPPED = -9, 143
AFTER_NAMING = ["after_rename", "before_prune", "mid_prune", "after_prune"]


class Nursery:
    """A child that forks the processes to be killed, as importing torch for each would take longer than the test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, folder: Path, *, count: int, fault: str = "", kill_after: float | None = None) -> int:
        """Save `count` steps, or die; how that ended."""
        assert self.process.stdin and self.process.stdout
        order: dict[str, Any] = {"folder": str(folder), "count": count, "fault": fault, "kill_after": kill_after}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "nursery.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield Nursery(process)
        assert process.stdin
        process.stdin.close()


def found_in(folder: Path) -> int:
    """The step of the newest checkpoint; it must be whole, be read in full and be of one step only."""
    said: list[str] = []
    found = checkpoint.latest(folder, tell=said.append)
    assert found is not None and not said
    tensors, state = checkpoint.read(found)
    assert state["tokens"] == 10 * found.step
    assert torch.equal(tensors["param/a"], torch.full((256, 512), float(found.step)))
    assert torch.equal(tensors["exp_avg/a"], torch.full((256, 512), -float(found.step), dtype=torch.bfloat16))
    assert tensors["step/a"].shape == () and tensors["step/a"].item() == found.step
    return found.step


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("point", BEFORE_NAMING + AFTER_NAMING)
def test_killed_at_a_point_of_the_third_save(nursery: Nursery, tmp_path: Path, point: str) -> None:
    assert nursery.run(tmp_path, count=2) == 0
    assert nursery.run(tmp_path, count=1, fault=point) == KILLED
    assert found_in(tmp_path) == (3 if point in AFTER_NAMING else 2)

    checkpoint.tidy(tmp_path)
    assert all(name.startswith("step-") for name in names_in(tmp_path))
    assert nursery.run(tmp_path, count=2) == 0
    step = found_in(tmp_path)
    assert names_in(tmp_path) == [f"step-{step - 1:06d}", f"step-{step:06d}"]


@pytest.mark.parametrize("point", BEFORE_NAMING + AFTER_NAMING)
def test_told_to_stop_in_the_midst_of_a_save_it_is_finished(nursery: Nursery, tmp_path: Path, point: str) -> None:
    assert nursery.run(tmp_path, count=5, fault=f"{point} 1 TERM") == STOPPED
    assert found_in(tmp_path) == (3 if point == "mid_prune" else 1)
    assert all(name.startswith("step-") for name in names_in(tmp_path))


def test_killed_while_a_damaged_checkpoint_is_replaced(nursery: Nursery, tmp_path: Path) -> None:
    assert nursery.run(tmp_path, count=2) == 0
    newest = tmp_path / "checkpoints" / "step-000002"
    (newest / "state.json").write_text("{}")
    assert nursery.run(tmp_path, count=1, fault="before_rename") == KILLED
    said: list[str] = []
    found = checkpoint.latest(tmp_path, tell=said.append)
    assert found is not None and found.step == 1
    assert "step-000002 is damaged (state.json: size differs), falling back to step-000001" in said[0]
    assert nursery.run(tmp_path, count=1) == 0
    assert found_in(tmp_path) == 2


def test_killed_at_random_moments_the_run_never_loses_a_named_checkpoint(nursery: Nursery, tmp_path: Path) -> None:
    rng, newest, cut_short = random.Random(0), 0, 0
    assert nursery.run(tmp_path, count=1) == 0
    for _ in range(24):
        assert nursery.run(tmp_path, count=10**6, kill_after=rng.uniform(0.01, 0.09)) == KILLED
        step = found_in(tmp_path)
        assert step >= newest
        newest = step
        cut_short += bool(checkpoint.tidy(tmp_path))
        assert all(name.startswith("step-") for name in names_in(tmp_path))
    assert newest > 5 and cut_short > 3


def test_a_kill_leaves_files_that_plain_safetensors_reads(nursery: Nursery, tmp_path: Path) -> None:
    assert nursery.run(tmp_path, count=3, fault="after_rename 3") == KILLED
    assert load_file(tmp_path / "checkpoints" / "step-000003" / "tensors.safetensors")["step/a"] == 3
