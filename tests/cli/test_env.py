"""`hone env`: what it says is what Python, torch and the package's own metadata say."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import pytest
import torch

from hone import __version__
from hone.cli.main import main


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, object]]:
    from hone.cli.env import facts

    return json.loads(json.dumps(facts()))


def test_versions_and_machine(told: dict[str, dict[str, object]]) -> None:
    assert told["versions"]["hone"] == __version__
    assert told["versions"]["python"] == platform.python_version()
    assert told["versions"]["torch"] == metadata.version("torch")
    assert told["torch"]["threads"] == torch.get_num_threads()
    assert told["torch"]["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert isinstance(told["machine"]["cores"], int) and told["machine"]["cores"] >= 1
    assert "times as fast" in str(told["torch"]["bf16_on_cpu"])


def test_offline_is_seen(told: dict[str, dict[str, object]]) -> None:
    assert told["folders"]["offline"] is True


def test_extras_come_from_the_metadata(told: dict[str, dict[str, object]]) -> None:
    assert set(told["extras"]) == set(metadata.metadata("hone-llm").get_all("Provides-Extra") or [])
    assert told["extras"]["dev"] == "present"


def test_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["hone"] == __version__
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "versions" in lines and f"  hone             {__version__}" in lines
    assert any(line.startswith("  memory ") and line.endswith("B") for line in lines)
