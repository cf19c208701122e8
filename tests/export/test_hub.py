"""Pushing to the hub, against one on this machine: whole, resumable, and without a word about the token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.export.desk import TOKEN, PushHub, desk

Tuned = Callable[..., Path]
Push = Callable[[list[str], str | None], tuple[int, str]]
PUSH = """
import json, os, sys
from contextlib import redirect_stderr, redirect_stdout
import hone.recipe.exporting
from hone.cli.main import main
for line in sys.stdin:
    words, token, log = json.loads(line)
    if not (child := os.fork()):
        os.environ |= {"HF_TOKEN": token} if token else {}
        with open(log, "w") as said, redirect_stdout(said), redirect_stderr(said):
            status = main(words)
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def pushing(hub: PushHub, folder: Path) -> Iterator[Push]:
    """`push(words, token)` runs `hone export words...` in a process of its own, against a hub on this machine: (status, what it said)."""
    with desk(hub) as server:
        hub.url = server.url
        here = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | here | {"OMP_NUM_THREADS": "1"}
        command, pipe = [sys.executable, "-W", "ignore", "-c", PUSH], subprocess.PIPE
        with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, cwd=Path(__file__).parents[2]) as process:
            assert process.stdin is not None and process.stdout is not None

            def push(words: list[str], token: str | None) -> tuple[int, str]:
                print(json.dumps([["export", *words], token, str(folder / "log")]), file=process.stdin, flush=True)
                status = int(process.stdout.readline())
                return status, " ".join((folder / "log").read_text().split())

            yield push
            process.stdin.close()


def test_a_push_breaks_goes_on_and_is_whole(tuned_of: Tuned, tmp_path: Path) -> None:
    hub, out = PushHub(tmp_path, broken=1), tmp_path / "out"
    words = [str(tuned_of("qwen3") / "adapter"), "--to", "hub", "--out", str(out), "--no-verify"]
    whole = [*words, "--repo", "own/model", "--private"]
    said = []
    with pushing(hub, tmp_path) as push:
        for order, code in (((whole, None), "F048"), ((words, TOKEN), "F048"), ((whole, "hf_other"), "F049"), ((whole, TOKEN), "F049")):
            status, text = push(*order)
            assert status == 4 and code in text, text
            said.append(text)
        assert "the same command goes on" in said[-1] and "README.md" not in hub.files
        status, text = push(whole, TOKEN)
        assert status == 0, text
    needed = {"README.md", "adapter_config.json", "adapter_model.safetensors", "golden.json", "golden.safetensors", "tokenizer.json"}
    assert needed <= set(hub.files)
    folder = out / "qwen3-lora-adapter"
    assert hub.files["adapter_model.safetensors"] == (folder / "adapter_model.safetensors").read_bytes()
    assert len(hub.uploads) == len(set(hub.uploads)), "nothing is uploaded twice"
    assert hub.created[0]["visibility"] == "private"
    card = hub.files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "text-generation"
    assert "hone chat own/model" in card and folder.name not in card and str(tmp_path.parent) not in card, "no place of this machine"
    everything = "".join(said) + text + "".join(file.read_text("utf-8", "replace") for file in folder.rglob("*.*"))
    assert TOKEN not in everything and "hf_other" not in everything
