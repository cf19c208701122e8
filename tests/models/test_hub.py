"""Downloads, against a hub on this machine that speaks the real one's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.hub_stand_in import COMMIT, Hub, hub
from tests.models.tiny_models import edit_json, make_model, split

FETCH = """
import json, sys
from hone.core.errors import HoneError
from hone.models.hub import fetch_adapter, fetch_small, fetch_weights
for line in sys.stdin:
    order = json.loads(line)
    try:
        folder, listing = fetch_adapter(order["name"]) if "adapter" in order["name"] else None, None
        if folder is None:
            folder, listing = fetch_small(order["name"], revision=order["revision"])
        if listing is not None:
            fetch_weights(folder, listing)
        answer = {"files": sorted(file.name for file in folder.iterdir()), "folder": str(folder), "listed": listing is not None}
    except HoneError as error:
        answer = {"code": error.code, "what": error.what, "fix": error.fix}
    print(json.dumps(answer), flush=True)
"""
LOAD = """
import sys
from pathlib import Path
from hone.models.load import load
from hone.core.errors import HoneError
for name, trust in (("own/tiny", False), ("own/code", False), ("own/code", True)):
    try:
        loaded = load(name, dtype="float32", device="cpu", trust_remote_code=trust)
        print(loaded.name, loaded.revision, type(loaded.model).__name__, Path("ran").exists(), flush=True)
    except HoneError as error:
        print(error.code, Path("ran").exists(), flush=True)
    input()
"""
MODELING = """
from pathlib import Path
from transformers import LlamaForCausalLM
class Own(LlamaForCausalLM):
    Path("ran").mkdir(exist_ok=True)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that the stand-in serves."""
    root = tmp_path_factory.mktemp("hub")
    for name in ("tiny", "shards", "code", "pickle", "gguf", "huge", "hole"):
        make_model(root / "own" / name)
    (root / "own" / "tiny" / "notes.md").write_text("not needed")
    (root / "own" / "tiny" / "consolidated.safetensors").write_bytes(b"a second copy of the weights")
    (root / "own" / "tiny" / "pytorch_model.bin").write_bytes(b"a third")
    split(root / "own" / "shards")
    split(root / "own" / "hole")
    sorted((root / "own" / "hole").glob("*.safetensors"))[0].unlink()
    edit_json(root / "own" / "code" / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"}, architectures=["Own"])
    (root / "own" / "code" / "modeling_own.py").write_text(MODELING)
    (root / "own" / "pickle" / "model.safetensors").rename(root / "own" / "pickle" / "pytorch_model.bin")
    (root / "own" / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "golden.safetensors", "README.md", "run.py"):
        (root / "own" / "adapter" / name).write_text("{}")
    (root / "own" / "gguf" / "model.safetensors").rename(root / "own" / "gguf" / "model.Q4_K_M.gguf")
    return root


@pytest.fixture
def server(root: Path) -> Iterator[Hub]:
    with hub(root) as server:
        yield server


def at(url: str, cache: Path) -> dict[str, str]:
    """An environment whose hub is at `url` and whose cache is in a folder of its own."""
    here = {"HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **here, "PYTHONPATH": str(Path(__file__).parents[2])}


def run(script: str, cache: Path, url: str, orders: list[dict[str, Any]] | None = None, **more: str) -> list[str]:
    """Run a script with orders as its input, and return the lines that it prints."""
    environment = at(url, cache) | more
    lines = "".join(json.dumps(order) + "\n" for order in orders or [])
    answer = subprocess.run([sys.executable, "-c", script], env=environment, input=lines, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()


def fetch(names: list[str], cache: Path, url: str, **more: str) -> list[dict[str, Any]]:
    orders = [{"name": name.partition("@")[0], "revision": name.partition("@")[2] or None} for name in names]
    return [json.loads(line) for line in run(FETCH, cache, url, orders, **more)]


def test_a_download_takes_what_is_needed_and_no_more(server: Hub, tmp_path: Path) -> None:
    tiny, shards, pinned, adapter = fetch(["own/tiny", "own/shards", f"own/tiny@{COMMIT}", "own/adapter"], tmp_path, server.url)
    assert adapter["files"] == ["adapter_config.json", "adapter_model.safetensors", "golden.safetensors", "tokenizer.json"]
    assert tiny["files"] == ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert pinned == tiny
    assert len([name for name in shards["files"] if name.endswith(".safetensors")]) > 1
    downloads = [path for path in server.asked if path.startswith("GET") and "/resolve/" in path]
    assert len(downloads) == len(set(downloads)), "no file is downloaded twice"


def test_a_model_loads_from_the_hub_and_its_code_only_on_request(server: Hub, tmp_path: Path) -> None:
    environment = at(server.url, tmp_path)
    options = {"env": environment, "cwd": tmp_path, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", LOAD], **options) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = []
        for _ in range(3):
            said.append(process.stdout.readline().strip())
            asked = [path for path in server.asked if path.startswith("GET /own/code/resolve")]
            said.append(sorted({Path(path).suffix for path in asked}))
            process.stdin.write("\n")
            process.stdin.flush()
    assert said == [
        *(f"own/tiny {COMMIT} LlamaForCausalLM False", []),
        *("M007 False", [".json"]),
        *(f"own/code {COMMIT} Own True", [".json", ".py", ".safetensors"]),
    ]


def test_what_the_hub_refuses_is_said_plainly(server: Hub, tmp_path: Path) -> None:
    names = ["own/gated", "own/private", "own/banned", "own/nothing", "own/tiny@v9", "own/pickle", "own/gguf", "own/huge", "own/hole"]
    answers = fetch(names, tmp_path, server.url)
    codes = [answer.get("code") for answer in answers]
    assert codes == ["M017", "M009", "M017", "M009", "M009", "M008", "M006", "M018", "M005"], answers
    assert all(answer["what"] and answer["fix"] for answer in answers)
    assert "hf auth login" in answers[0]["fix"]
    assert "v9" in answers[4]["what"]
    assert "HF_HOME" in answers[7]["fix"]
    downloads = [path for path in server.asked if path.startswith("GET") and "/resolve/" in path]
    assert not [path for path in downloads if path.endswith((".bin", ".gguf")) or ("own/huge" in path and "safetensors" in path)]


def test_without_a_network_or_a_hub_the_cache_is_used(server: Hub, tmp_path: Path) -> None:
    online, down = fetch(["own/tiny", "own/down"], tmp_path, server.url)
    assert down["code"] == "M016"
    for url, more in ((server.url, {"HF_HUB_OFFLINE": "1"}), ("http://127.0.0.1:9", {})):
        known, unknown = fetch(["own/tiny", "own/shards"], tmp_path, url, **more)
        assert known == online | {"listed": False}
        assert unknown["code"] == "M016"
        assert "HF_HUB_OFFLINE" in unknown["fix"]
