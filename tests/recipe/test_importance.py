"""An importance matrix is the mean square of what the layers meet in the run's own data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hone.core.types import Sequence
from hone.data.batching import pack
from hone.models.policy import using_attention
from hone.models.settings import HardwareSettings
from hone.recipe.importance import LEAST, importance, of_run
from hone.recipe.opening import open_model
from tests.conftest import Work


@pytest.fixture(scope="module")
def run(work: Work, model_folder: Path, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("importance") / "run"
    settings = {"model": model_folder, "data": data_file, "output": folder, "optim.max_steps": 2, "hardware.dtype": "float32", "lr": "1e-2"}
    assert work(["train", "sft", *(f"{key}={value}" for key, value in settings.items())]) == 0
    return folder


def test_a_run_reads_its_own_data(run: Path) -> None:
    said: list[str] = []
    found = of_run(run, json.loads((run / "resolved.json").read_text()), tell=said.append)
    assert len(said) == 1 and "tokens of the training data" in said[0]
    assert {f"model.layers.1.{name}.weight" for name in ("self_attn.q_proj", "mlp.down_proj")} <= found.keys()
    assert all(bool((mean > 0).all()) for mean in found.values())


def test_it_is_the_mean_square_of_what_each_text_shows_alone(model_folder: Path) -> None:
    opened = open_model(model_folder, hardware=HardwareSettings(dtype="float32", device="cpu"))
    texts = [[5, 6, 7, 8, 9], [5, 6, 11]]
    groups = [(Sequence(text, [1.0] * len(text)),) for text in texts]
    found = importance(opened.policy, [pack(groups, share=False)])
    seen: list[Tensor] = []
    layer = opened.policy.model.get_submodule("model.layers.1.mlp.down_proj")
    assert isinstance(layer, nn.Linear)
    handle = layer.register_forward_pre_hook(lambda module, given: seen.append(given[0].flatten(0, -2)))
    with torch.no_grad(), using_attention(opened.policy.model, "sdpa"):
        for text in texts:
            opened.policy.model(input_ids=torch.tensor([text]), use_cache=False)
    handle.remove()
    mean = torch.cat(seen).square().mean(0)
    torch.testing.assert_close(
        found["model.layers.1.mlp.down_proj.weight"], mean.clamp(min=float(mean.mean()) * LEAST), rtol=1e-4, atol=1e-7
    )


def test_without_data_there_is_none(run: Path, tmp_path: Path) -> None:
    resolved = json.loads((run / "resolved.json").read_text())
    said: list[str] = []
    gone = resolved | {"data": resolved["data"] | {"train": str(tmp_path / "gone.jsonl")}}
    assert of_run(run, gone, tell=said.append) == {} and "cannot be read any more" in said[0]
    assert of_run(None, {}, tell=said.append) == {}
