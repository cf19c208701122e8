"""`hone list`: every registry is listed, each thing with its summary."""

from __future__ import annotations

import pytest

from hone.cli.listing import LISTS
from hone.cli.main import main
from hone.core.errors import catalogue


@pytest.mark.parametrize("what", LISTS)
def test_lists_are_not_empty_and_every_thing_is_named_once(what: str) -> None:
    rows = LISTS[what]()
    names = [name for name, _ in rows]
    assert names and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("objectives", "sft"),
        ("methods", "lora"),
        ("formats", "messages"),
        ("templates", "chatml"),
        ("errors", "C001"),
        ("rewards", "code"),
        ("credits", "gae"),
        ("presets", "grpo"),
        ("pipelines", "sft+rlhf"),
    ],
)
def test_known_things_are_there(what: str, name: str) -> None:
    assert name in dict(LISTS[what]())


@pytest.mark.parametrize("what", ["objectives", "methods", "formats", "errors", "rewards", "credits", "presets", "pipelines"])
def test_everything_says_what_it_is(what: str) -> None:
    assert [name for name, text in LISTS[what]() if not text] == []


def test_lists_are_printed_one_to_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "errors"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(catalogue())
    assert main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(LISTS) + 1


def test_a_wrong_list_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "method"]) == 2
    assert "did you mean 'methods'?" in capsys.readouterr().err
