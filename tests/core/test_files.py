"""Files and folders are whole or absent, whatever goes wrong while they are written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hone.core.files import damage, remove_folder, sha256_of, staged_file, staged_folder, sweep, write_atomically, write_hashed

ROOT = Path(__file__).parents[2]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kill_at(point: str, code: str, folder: Path) -> None:
    """Run code in a child that is killed at a fault point."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HONE_FAULT": point}
    code = f"from pathlib import Path; from hone.core.files import *; folder = Path({str(folder)!r})\n{code}"
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -9


def test_text_and_bytes(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "Grüße\n")
    assert (tmp_path / "a").read_bytes() == "Grüße\n".encode()
    write_atomically(tmp_path / "a", b"\x00")
    assert (tmp_path / "a").read_bytes() == b"\x00" and names_in(tmp_path) == ["a"]


@pytest.mark.parametrize(("point", "content"), [("after_write:a", "old"), ("before_replace:a", "old"), ("after_replace:a", "new")])
def test_a_kill_leaves_the_old_file_or_the_new(tmp_path: Path, point: str, content: str) -> None:
    write_atomically(tmp_path / "a", "old")
    kill_at(point, "write_atomically(folder / 'a', 'new')", tmp_path)
    assert (tmp_path / "a").read_text() == content
    sweep(tmp_path)
    assert names_in(tmp_path) == ["a"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), staged_file(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and names_in(tmp_path) == ["a"]


def test_a_folder_gets_its_name_with_a_manifest(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "adapter") as stage:
        (stage / "deep").mkdir()
        (stage / "deep" / "b.bin").write_bytes(b"b" * 1000)
        (stage / "a.json").write_text("{}")
        assert not (tmp_path / "adapter").exists()
    listed = json.loads((tmp_path / "adapter" / "manifest.json").read_text())["files"]
    assert listed == {
        "a.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2},
        "deep/b.bin": {"sha256": hashlib.sha256(b"b" * 1000).hexdigest(), "bytes": 1000},
    }
    assert names_in(tmp_path) == ["adapter"] and damage(tmp_path / "adapter") is None


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "adapter") as stage:
        (stage / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "adapter") as stage:
        (stage / "a").write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "adapter" / "a").read_text() == "old" and names_in(tmp_path) == ["adapter"]


def test_a_folder_replaces_another_whole(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with staged_folder(tmp_path / "adapter") as stage:
            (stage / content).write_text(content)
    assert names_in(tmp_path / "adapter") == ["manifest.json", "new"] and names_in(tmp_path) == ["adapter"]


REPLACE = """
with staged_folder(folder / "adapter") as stage:
    (stage / "a").write_text("new")
"""


@pytest.mark.parametrize(("point", "content"), [("mid_write:manifest.json", "old"), ("before_rename", "old"), ("after_rename", "new")])
def test_a_kill_while_replacing_a_folder_leaves_the_old_or_the_new(tmp_path: Path, point: str, content: str) -> None:
    with staged_folder(tmp_path / "adapter") as stage:
        (stage / "a").write_text("old")
    kill_at(point, REPLACE, tmp_path)
    assert damage(tmp_path / "adapter") is None and (tmp_path / "adapter" / "a").read_text() == content
    sweep(tmp_path)
    assert names_in(tmp_path) == ["adapter"]


def test_a_folder_that_had_stepped_aside_comes_back(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "adapter") as stage:
        (stage / "a").write_text("old")
    kill_at("mid_rename", REPLACE, tmp_path)
    assert not (tmp_path / "adapter").exists()
    assert len(sweep(tmp_path)) == 2
    assert names_in(tmp_path) == ["adapter"] and (tmp_path / "adapter" / "a").read_text() == "old"


def test_sweeping_spares_the_living_and_what_is_not_ours(tmp_path: Path) -> None:
    spared = [f".tmp-step-000001-{os.getppid()}", ".tmp-notes", ".git", ".lock", "tmp-a-1"]
    for name in spared:
        (tmp_path / name).mkdir()
    (tmp_path / f".tmp-a-{os.getpid()}").write_text("of a former process with our id")
    assert sweep(tmp_path) == [f".tmp-a-{os.getpid()}"]
    assert names_in(tmp_path) == sorted(spared)


def test_hash_while_writing_is_the_hash_of_the_file(tmp_path: Path) -> None:
    digest = write_hashed(tmp_path / "a", [b"one", memoryview(b"two"), b""])
    assert (tmp_path / "a").read_bytes() == b"onetwo" and digest == sha256_of(tmp_path / "a")


def test_known_hashes_guard_what_was_meant_against_what_is_there(tmp_path: Path) -> None:
    hashes: dict[str, str] = {}
    with staged_folder(tmp_path / "x", hashes=hashes) as stage:
        hashes["a"] = write_hashed(stage / "a", [b"right"])
        (stage / "a").write_bytes(b"wrong")
    assert damage(tmp_path / "x") == "a: hash differs"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}', "[" * 100_000, "\x00"])
def test_a_manifest_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "manifest.json").write_text(content)
    assert damage(tmp_path) == "manifest.json: not readable"


def test_a_folder_without_manifest_is_not_whole(tmp_path: Path) -> None:
    assert damage(tmp_path) == "manifest.json: missing"


def test_removing_a_folder_never_leaves_half_of_it_under_its_name(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "x") as stage:
        (stage / "a").write_text("a")
    kill_at("mid_prune", "remove_folder(folder / 'x')", tmp_path)
    assert not (tmp_path / "x").exists()
    sweep(tmp_path)
    assert names_in(tmp_path) == []
    with staged_folder(tmp_path / "x"):
        pass
    remove_folder(tmp_path / "x")
    assert names_in(tmp_path) == []
