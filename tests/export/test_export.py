"""The command, and what it promises: nothing half-written, room checked first, several targets at once, plain words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hone.cli.main import main
from hone.core.errors import HoneError
from hone.core.files import damage
from hone.export import TARGETS, Order
from hone.export.adapter import SLACK
from hone.export.base import choose_quant
from hone.export.shards import write_weights
from hone.export.tensors import StoredWeights
from hone.recipe.exporting import Wanted, export, open_source
from tests.conftest import Work

Tuned = Callable[..., Path]


def test_several_targets_at_once_and_their_papers(tuned_of: Tuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tuned_of("qwen3")
    words = ["export", str(given / "adapter"), "--to", "adapter,vllm", "--to", "openwebui,ollama", "--out", str(tmp_path), "--no-verify"]
    assert main(words) == 0
    said = capsys.readouterr().out
    made = {path.name: path for path in tmp_path.iterdir()}
    assert set(made) == {"qwen3-lora-adapter", "qwen3-lora-vllm", "qwen3-lora-openwebui", "qwen3-lora-ollama"}
    assert all(damage(path) is None for path in made.values()), "every folder has a manifest that holds"
    modelfile = (made["qwen3-lora-ollama"] / "Modelfile").read_text()
    assert 'PARAMETER stop "<|im_end|>"' in modelfile and "FROM ./qwen3-lora-Q8_0.gguf" in modelfile and "{{ $m.Content }}" in modelfile
    assert "vllm serve qwen3-lora-vllm --served-model-name" in (made["qwen3-lora-vllm"] / "serve.sh").read_text()
    for path in made.values():
        readme = (path / "README.md").read_text()
        assert f"hone verify {path.name}" in readme and str(tmp_path) not in readme
    assert "ollama create" in said and "open-webui serve" in said
    assert "--enable-lora" in (made["qwen3-lora-adapter"] / "README.md").read_text()
    stops = json.loads((made["qwen3-lora-vllm"] / "generation_config.json").read_text())["eos_token_id"]
    assert stops == [1] or stops == 1


def test_verify_from_the_command_line(tuned_of: Tuned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tuned_of("qwen3")
    assert main(["export", str(given / "adapter"), "--to", "merged", "--quant", "f32", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "qwen3-lora-merged-f32"
    assert main(["verify", str(folder), "--json"]) == 0
    said = capsys.readouterr().out
    verdict = json.loads(said[said.rindex("\n{\n") :])
    assert verdict["passed"] and verdict["positions"] > 50 and verdict["worst_logprob_difference"] < 1e-4
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert main(["verify", str(folder)]) == 3
    assert "wrong template" in capsys.readouterr().out


@pytest.mark.parametrize("point", ["mid_write:model.safetensors", "before_write:golden.json", "before_rename"])
def test_a_killed_export_leaves_nothing_under_a_final_name(point: str, work: Work, tuned_of: Tuned, tmp_path: Path) -> None:
    words = ["export", str(tuned_of("qwen3") / "adapter"), "--to", "merged", "--out", str(tmp_path), "--no-verify"]
    assert work(words, fault=point) == -9
    left = [path.name for path in tmp_path.iterdir()]
    assert left and all(name.startswith(".tmp-") for name in left)
    (artifact,) = export(open_source(str(tuned_of("qwen3") / "adapter")), Wanted(targets=("merged",), out=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [artifact.path.name], "leftovers are swept"


def test_the_room_that_is_asked_for_is_enough(tuned_of: Tuned, tmp_path: Path) -> None:
    source = open_source(str(tuned_of("qwen3") / "adapter"))
    for target, quant in (("adapter", ""), ("merged", "f32"), ("gguf", "F16"), ("gguf", "Q4_0")):
        (artifact,) = export(source, Wanted(targets=(target,), out=tmp_path, quant=quant or None))
        order = Order(source=source, quant=quant, folder=tmp_path / "x", tell=print, made={})
        written = sum(file.stat().st_size for file in artifact.path.iterdir() if file.suffix in (".safetensors", ".gguf"))
        assert written <= TARGETS[target]().needed(order) <= written + SLACK + 100_000


def test_shards_hold_the_same_and_are_read_one_tensor_at_a_time(base_of: Callable[[str], Path], tmp_path: Path) -> None:
    weights = StoredWeights(base_of("qwen2"))
    hashes = write_weights(tmp_path, weights, dtype=torch.float32, limit=60_000, tell=print)
    assert len(hashes) > 3 and (tmp_path / "model.safetensors.index.json").is_file()
    found = {name: tensor for file in hashes for name, tensor in load_file(tmp_path / file).items()}
    assert found.keys() == set(weights.names())
    assert all(torch.equal(found[name], weights.get(name)) for name in found)


def test_full_tuning_has_no_adapter(tuned_of: Tuned, tmp_path: Path) -> None:
    with pytest.raises(HoneError) as caught:
        export(open_source(str(tuned_of("qwen3", "full") / "model")), Wanted(targets=("adapter",), out=tmp_path))
    assert caught.value.code == "F045" and "--to merged" in caught.value.fix


@pytest.mark.parametrize(
    ("target", "asked", "found"),
    [("gguf", "q4_k_m", "Q4_K_M"), ("gguf", "q8-0", "Q8_0"), ("merged", "BF16", "bf16"), ("gguf", None, "Q8_0")],
)
def test_quantisations_by_any_spelling(target: str, asked: str | None, found: str) -> None:
    assert choose_quant(target, asked) == found


def test_unknown_quantisations_and_targets(tuned_of: Tuned, tmp_path: Path) -> None:
    source = open_source(str(tuned_of("qwen3") / "adapter"))
    for targets, quant, code in ((("gguf",), "Q9", "C045"), (("gguv",), None, "C003")):
        with pytest.raises(HoneError) as caught:
            export(source, Wanted(targets=targets, out=tmp_path, quant=quant))
        assert caught.value.code == code


def test_a_finished_run_has_its_certificate(tuned_of: Tuned) -> None:
    document = json.loads((tuned_of("qwen3") / "golden.json").read_text())
    names = {vector["name"] for vector in document["vectors"]}
    assert {"plain", "system", "turns", "long", "chinese", "special", "text"} <= names
    assert len(document["changes"]) == 14
