"""What counts as right, and how a user's own function is found and trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.core.errors import HoneError, catalogue
from hone.eval.graders import GRADERS, graded, grader


@pytest.mark.parametrize(
    ("name", "answer", "expected", "score"),
    [
        ("exact_match", " It opens\n at  six. ", "It opens at six.", 1),
        ("exact_match", "it opens at six.", "It opens at six.", 0),
        ("exact_match", "ｆｕｌｌ width", "full width", 1),
        ("exact_match", "", "six", 0),
        ("contains", "I think that it opens AT SIX, sir.", "at six", 1),
        ("contains", "at seven", "at six", 0),
        ("number", "3 loaves at 1.50 make 4.50 shillings", "4.5", 1),
        ("number", "That is 1,200.50.", "1200.5", 1),
        ("number", "The change is \N{MINUS SIGN}7", "#### -7", 1),
        ("number", "between 3,14 and 15", "15", 1),
        ("number", "no idea", "15", 0),
        ("number", "15", "fifteen", 0),
        ("number", "46", "45", 0),
    ],
)
def test_built_in_graders(name: str, answer: str, expected: str, score: int) -> None:
    assert GRADERS[name](answer, expected, {}) == score


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(
        "def polite(answer, expected, columns):\n    return columns['weight'] * ('please' in answer)\n"
        "def odd(answer, expected, columns):\n    return float('nan')\n"
        "def broken(answer, expected, columns):\n    return answer['x']\n"
        "def two(answer, expected):\n    return 1.0\n"
    )
    return file


def test_a_function_in_a_file_sees_the_rows_columns(own: Path) -> None:
    assert graded("mine", grader(f"{own}:polite"), "please", "", {"weight": 0.5}) == 0.5


def test_a_function_in_a_module() -> None:
    assert grader("hone.eval.graders:contains")("abc", "b", {}) == 1


@pytest.mark.parametrize(
    ("name", "code", "hint"),
    [
        ("exact_mach", "C003", "exact_match"),
        ("{own}:polit", "C040", "polite"),
        ("{own}:two", "C040", "answer, expected, columns"),
        ("missing.py:polite", "C040", "path"),
        ("no_such_module:polite", "C040", "file"),
        ("hone.eval.no_such:polite", "C040", "file"),
    ],
)
def test_what_is_not_there_is_named_with_its_neighbour(own: Path, name: str, code: str, hint: str) -> None:
    with pytest.raises(HoneError, match=code) as caught:
        grader(name.format(own=own))
    assert hint in caught.value.fix


@pytest.mark.parametrize("function", ["odd", "broken"])
def test_a_grader_that_fails_is_the_users_to_mend(own: Path, function: str) -> None:
    with pytest.raises(HoneError, match="C041"):
        graded("mine", grader(f"{own}:{function}"), "text", "", {})


def test_a_module_that_fails_to_import_another_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_another.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        grader("needs_another:f")


def test_every_code_of_this_room_is_explained() -> None:
    assert {"C040", "C041", "C042", "C043", "D060", "M002", "M030"} <= catalogue().keys()
