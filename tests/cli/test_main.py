"""The command line's frame: help, versions, faults and exit statuses, as a person at a terminal or a pipe sees them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hone import __version__
from hone.cli import main as frame
from hone.cli.main import VERBS, Verb, main
from hone.core.errors import HoneError


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    told = capsys.readouterr().out
    for name, verb in VERBS.items():
        assert f"  {name} " in told
        assert verb.help in told


def test_help_fits_sixty_columns_and_has_no_control_codes() -> None:
    done = _run("--help", COLUMNS="60")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 60


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hone {__version__}\n"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: hone {name}" in capsys.readouterr().out


def test_a_misspelt_verb_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--jason"]) == 2
    assert "No such option" in capsys.readouterr().err


def test_a_fault_is_told_with_place_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "perplexitty"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "C003  hone has no explanation of 'perplexitty'",
        "  where  hone explain",
        "  fix    did you mean 'perplexity'?",
        "  more   hone explain C003",
    ]


def _verbs(monkeypatch: pytest.MonkeyPatch, **functions: object) -> None:
    """Put verbs of this file into the table."""
    for name, function in functions.items():
        monkeypatch.setattr(sys.modules[__name__], f"verb_{name}", function, raising=False)
        monkeypatch.setitem(frame.VERBS, name, Verb(__name__, f"verb_{name}", "A verb of this test.", takes_settings=True))


def test_what_a_verb_returns_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaving(status: int) -> int:
        return status

    def silent() -> None:
        pass

    _verbs(monkeypatch, leaving=leaving, silent=silent)
    assert main(["leaving", "75"]) == 75
    assert main(["leaving", "0"]) == 0
    assert main(["silent"]) == 0


def test_settings_with_dashes_reach_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def taking(settings: list[str]) -> None:
        seen.extend(settings)

    _verbs(monkeypatch, taking=taking)
    assert main(["taking", "sft", "--lr=1e-4", "optim.epochs=2"]) == 0
    assert seen == ["sft", "--lr=1e-4", "optim.epochs=2"]


def test_a_group_of_commands_can_be_a_verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    group = typer.Typer()
    group.command("one")(lambda: print("the first"))
    group.command("two")(lambda: print("the second"))
    _verbs(monkeypatch, group=group)
    assert main(["group", "two"]) == 0
    assert capsys.readouterr().out == "the second\n"


@pytest.mark.parametrize(("code", "status"), [("C001", 2), ("D001", 3), ("F003", 4)])
def test_each_family_of_faults_has_its_status(code: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> None:
        raise HoneError(code, "it cannot be done")

    _verbs(monkeypatch, failing=failing)
    assert main(["failing"]) == status


def test_control_codes_in_data_do_not_reach_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> None:
        raise HoneError("D001", "bad row '\x1b[2J[red]gone[/red]'", where="a.jsonl:1")

    _verbs(monkeypatch, failing=failing)
    assert main(["failing"]) == 3
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "[red]gone[/red]" in told


def test_a_full_disk_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def filling() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl")

    _verbs(monkeypatch, filling=filling)
    assert main(["filling"]) == 4
    told = capsys.readouterr().err
    assert "F004" in told and "runs/x/metrics.jsonl" in told


def test_the_next_commands_can_be_typed_as_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hone.cli.style import program

    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "hone").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == ".venv/bin/hone"
    monkeypatch.setenv("PATH", str(tmp_path / ".venv" / "bin"))
    assert program() == "hone"


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    _verbs(monkeypatch, interrupted=interrupted)
    assert main(["interrupted"]) == 130


def test_a_fault_of_ours_is_saved_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("the third wheel\nand more")

    _verbs(monkeypatch, broken=broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["broken"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "ZeroDivisionError: the third wheel" in told
    (saved,) = tmp_path.iterdir()
    assert str(saved) in told
    text = saved.read_text("utf-8")
    assert "Traceback" in text and "in broken" in text and f"hone {__version__}" in text


def test_a_closed_pipe_ends_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*_program(), "explain"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


def test_a_terminal_without_our_characters_is_no_fault() -> None:
    done = _run("explain", "LoRA", "--lang", "zh", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "arXiv 2106.09685" in done.stdout


def _program() -> list[str]:
    return [sys.executable, "-c", "import sys; from hone.cli.main import main; sys.exit(main())"]


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_program(), *words], env=os.environ | environment, capture_output=True, text=True, check=False)
