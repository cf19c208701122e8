"""Checkpoints: what is kept, what is found, and what damage is noticed."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.files import damage
from hone.train import checkpoint

FILES = ("tensors.safetensors", "state.json", "manifest.json")


def tensors_of(step: int, size: int = 8) -> dict[str, Tensor]:
    return {"param/w": torch.full((size,), float(step)), "exp_avg/w": torch.zeros(size)}


def save(folder: Path, *steps: int, **state: Any) -> None:
    for step in steps:
        checkpoint.write(folder, step, tensors_of(step), state, keep=2, tell=silence)


def silence(sentence: str) -> None:
    raise AssertionError(f"nothing was to be said, but: {sentence}")


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").iterdir())


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = checkpoint.write(tmp_path, 7, tensors_of(7), {"tokens": 5, "loss": 0.1 + 0.2}, tell=silence)
    found = checkpoint.latest(tmp_path, tell=silence)
    assert found == written and found.path.name == "step-000007"
    tensors, state = checkpoint.read(found)
    assert torch.equal(tensors["param/w"], torch.full((8,), 7.0)) and set(tensors) == {"param/w", "exp_avg/w"}
    assert state["step"] == 7 and state["tokens"] == 5 and state["loss"] == 0.1 + 0.2 and "torch" in state["versions"]
    assert sorted(path.name for path in found.path.iterdir()) == sorted(FILES)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path, tell=silence) is None


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, best={"step": 2, "value": 0.5})
    assert steps_in(tmp_path) == [2, 3]
    save(tmp_path, 4, 5, best={"step": 2, "value": 0.5})
    assert steps_in(tmp_path) == [2, 4, 5]
    save(tmp_path, 6, best={"step": 6, "value": 0.4})
    assert steps_in(tmp_path) == [5, 6]
    assert checkpoint.at(tmp_path, 5).step == 5


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    save(tmp_path, 999_999, 1_000_000)
    found = checkpoint.latest(tmp_path, tell=silence)
    assert found is not None and found.step == 1_000_000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_noticed_and_the_one_before_taken(tmp_path: Path, name: str, where: float) -> None:
    save(tmp_path, 20, 40)
    file = tmp_path / "checkpoints" / "step-000040" / name
    flip(file, int(where * 8 * file.stat().st_size))
    said: list[str] = []
    found = checkpoint.latest(tmp_path, tell=said.append)
    assert found is not None and found.step == 20
    assert len(said) == 1 and "checkpoint step-000040 is damaged (" in said[0] and said[0].endswith("falling back to step-000020")


def test_each_bit_of_the_manifest_counts(tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder = tmp_path / "checkpoints" / "step-000001"
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    unnoticed = []
    for bit in range(0, 8 * len(whole), 7):
        flip(manifest, bit)
        unnoticed += [bit] if damage(folder) is None else []
        manifest.write_bytes(whole)
    assert unnoticed == [] and damage(folder) is None


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def longer(folder: Path) -> None:
    with (folder / "state.json").open("a") as file:
        file.write(" ")


def shorter(folder: Path) -> None:
    os.truncate(folder / "tensors.safetensors", 40)


def foreign(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-000020"), folder)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (empty, "manifest.json: missing"),
    (longer, "state.json: size differs"),
    (shorter, "tensors.safetensors: size differs"),
    (foreign, "state.json: it is of step 20"),
    *[(lambda folder, name=name: (folder / name).unlink(), f"{name}: missing") for name in FILES],
]


@pytest.mark.parametrize(("hurt", "reason"), DAMAGES)
def test_a_checkpoint_that_is_not_whole_is_passed_over_with_the_reason(tmp_path: Path, hurt: Callable[[Path], None], reason: str) -> None:
    save(tmp_path, 20, 40)
    hurt(tmp_path / "checkpoints" / "step-000040")
    said: list[str] = []
    found = checkpoint.latest(tmp_path, tell=said.append)
    assert found is not None and found.step == 20
    assert said == [f"checkpoint step-000040 is damaged ({reason}), falling back to step-000020"]
    with pytest.raises(HoneError, match="cannot be used") as caught:
        checkpoint.at(tmp_path, 40)
    assert caught.value.code == "F001"


def test_unfinished_and_foreign_folders_are_not_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for name in (".tmp-step-000009-1", "step-9", "step-000009.bak", "notes"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / "step-000008").write_text("a file")
    found = checkpoint.latest(tmp_path, tell=silence)
    assert found is not None and found.step == 1


def test_when_none_is_whole_the_run_does_not_silently_start_over(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step-{step:06d}" / "state.json").unlink()
    with pytest.raises(HoneError, match=r"step-000002 is damaged .*step-000001 is damaged") as caught:
        checkpoint.latest(tmp_path, tell=silence)
    assert caught.value.code == "F001" and "--fresh" in caught.value.fix
    checkpoint.start_over(tmp_path)
    assert checkpoint.latest(tmp_path, tell=silence) is None


def test_damaged_newer_ones_do_not_push_out_what_is_written_after_the_fall_back(tmp_path: Path) -> None:
    save(tmp_path, 10, 20, best={"step": 10})
    save(tmp_path, 30, best={"step": 10})
    for step in (20, 30):
        shorter(tmp_path / "checkpoints" / f"step-{step:06d}")
    save(tmp_path, 15)
    assert steps_in(tmp_path) == [10, 15]
    found = checkpoint.latest(tmp_path, tell=silence)
    assert found is not None and found.step == 15


def test_start_clears_what_crashes_left(tmp_path: Path) -> None:
    save(tmp_path, 1)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "checkpoints" / f".tmp-step-000002-{dead.pid}").mkdir()
    (tmp_path / f".tmp-resolved.json-{dead.pid}").write_text("{")
    alive = tmp_path / "checkpoints" / f".tmp-step-000002-{os.getppid()}"
    alive.mkdir()
    assert len(checkpoint.tidy(tmp_path)) == 2
    assert alive.is_dir() and sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints"]


@contextmanager
def file_limit(size: int) -> Iterator[Callable[[], None]]:
    """No file may grow beyond `size` bytes, until the function that is given is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield lift
    finally:
        lift()


def test_full_while_saving_keeps_the_old_one_and_says_how_much_is_missing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    said: list[str] = []
    with file_limit(50_000), pytest.raises(HoneError) as caught:
        checkpoint.write(tmp_path, 2, tensors_of(2, size=100_000), {}, tell=said.append, waits=(0.01, 0.01))
    assert caught.value.code == "F004" and caught.value.exit_status == 4 and "865.7 kB are needed" in str(caught.value)
    assert len(said) == 2 and "trying again in 0.01 s" in said[0]
    assert steps_in(tmp_path) == [1]


def test_full_for_a_moment_is_survived(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with file_limit(50_000) as lift:
        checkpoint.write(tmp_path, 2, tensors_of(2, size=100_000), {}, tell=lambda _: lift(), waits=(0.01,))
    found = checkpoint.latest(tmp_path, tell=silence)
    assert found is not None and found.step == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 kB, where the machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights that this machine does not give")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    checkpoint.write(small_disk, 1, tensors_of(1, size=30_000), {}, tell=silence)
    said: list[str] = []
    with pytest.raises(HoneError, match="no room to save") as caught:
        checkpoint.write(small_disk, 2, tensors_of(2, size=60_000), {}, tell=said.append, waits=(0.01,))
    assert caught.value.code == "F004" and len(said) == 1
    assert steps_in(small_disk) == [1]
    checkpoint.write(small_disk, 2, tensors_of(2, size=10_000), {}, tell=silence)
    assert steps_in(small_disk) == [1, 2]


def test_a_disk_that_became_read_only(small_disk: Path) -> None:
    save(small_disk, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(HoneError, match="cannot be written to") as caught:
        save(small_disk, 2)
    assert caught.value.code == "F005"
    found = checkpoint.latest(small_disk, tell=silence)
    assert found is not None and found.step == 1


def test_a_folder_that_vanished_is_not_quietly_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save(run, 1)
    shutil.rmtree(run)
    with pytest.raises(HoneError, match="is gone") as caught:
        save(run, 2)
    assert caught.value.code == "F006" and not run.exists()


def test_a_failure_while_saving_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(tmp_path, 2, loss=float("nan"))
    assert steps_in(tmp_path) == [1]
