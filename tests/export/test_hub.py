"""Pushing to the hub, against one on this machine: whole, resumable, and without a word about the token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.export.desk import TOKEN, PushHub, desk

Tuned = Callable[..., Path]
PUSH = "import sys; from hone.cli.main import main; sys.exit(main(sys.argv[1:]))"


def push(hub: PushHub, cache: Path, *words: str, token: str | None = TOKEN) -> subprocess.CompletedProcess[str]:
    with desk(hub) as server:
        hub.url = server.url
        here = {"HF_ENDPOINT": server.url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
        environment = (
            {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | here | ({"HF_TOKEN": token} if token else {})
        )
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PUSH, "export", *words], env=environment, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2]
        )  # fmt: skip


def test_a_push_breaks_goes_on_and_is_whole(tuned_of: Tuned, tmp_path: Path) -> None:
    hub = PushHub(tmp_path, broken=1)
    words = (
        str(tuned_of("qwen3") / "adapter"),
        "--to",
        "hub",
        "--repo",
        "own/model",
        "--private",
        "--out",
        str(tmp_path / "out"),
        "--no-verify",
    )
    first = push(hub, tmp_path / "cache", *words)
    assert first.returncode == 4 and "F049" in first.stderr + first.stdout, first.stdout + first.stderr
    assert "the same command goes on" in " ".join((first.stderr + first.stdout).split()) and "README.md" not in hub.files
    second = push(hub, tmp_path / "cache", *words)
    assert second.returncode == 0, second.stdout + second.stderr
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "golden.json", "golden.safetensors", "tokenizer.json"} <= set(
        hub.files
    )
    folder = tmp_path / "out" / "qwen3-lora-adapter"
    assert hub.files["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    assert len(hub.uploads) == len(set(hub.uploads)), "nothing is uploaded twice"
    assert hub.created[0]["visibility"] == "private"
    front = yaml.safe_load(hub.files["README.md"].decode().split("---")[1])
    assert front["pipeline_tag"] == "text-generation"
    everything = (
        first.stdout + first.stderr + second.stdout + second.stderr + "".join(f.read_text("utf-8", "replace") for f in folder.rglob("*.*"))
    )
    assert TOKEN not in everything


@pytest.mark.parametrize(
    ("more", "token", "code"),
    [(("--repo", "own/model"), None, "F048"), ((), TOKEN, "F048"), (("--repo", "own/model"), "hf_other", "F049")],
)
def test_what_a_push_lacks_is_said(more: tuple[str, ...], token: str | None, code: str, tuned_of: Tuned, tmp_path: Path) -> None:
    done = push(
        PushHub(tmp_path),
        tmp_path / "cache",
        str(tuned_of("qwen3") / "adapter"),
        "--to",
        "hub",
        "--out",
        str(tmp_path / "out"),
        "--no-verify",
        *more,
        token=token,
    )
    assert done.returncode == 4 and code in done.stdout + done.stderr, done.stdout + done.stderr
    assert (token or "nothing") not in done.stdout + done.stderr
