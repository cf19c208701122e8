"""The output folder is looked at before anything is loaded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hone.core.disk import check_output, check_room, free_bytes, size
from hone.core.errors import HoneError


@contextmanager
def nobody() -> Iterator[None]:
    """As an ordinary user: root may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_good_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_output(tmp_path / "runs" / "a", 1000)
    assert list((tmp_path / "runs" / "a").iterdir()) == []


def test_too_small_names_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match=r"needs 1000000\.0 TB of disk and .*B are free") as caught:
        check_output(tmp_path, 10**18)
    assert caught.value.code == "F003" and caught.value.exit_status == 4


def test_planning_needs_no_folder(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "there", 1000)
    assert free_bytes(tmp_path / "not" / "there") > 0 and not (tmp_path / "not").exists()


def test_read_only() -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o555)
        with nobody(), pytest.raises(HoneError) as caught:
            check_output(Path(place), 0)
        assert caught.value.code == "F005"
        with nobody(), pytest.raises(HoneError) as caught:
            check_output(Path(place) / "runs", 0)
        assert caught.value.code == "F005"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("I am a file")
    for place in (tmp_path / "runs", tmp_path / "runs" / "a"):
        with pytest.raises(HoneError) as caught:
            check_output(place, 0)
        assert caught.value.code == "F006"


@pytest.mark.parametrize(("n", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (7 * 10**12, "7.0 TB")])
def test_sizes(n: int, text: str) -> None:
    assert size(n) == text
