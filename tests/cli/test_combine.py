"""`hone combine` on the command line; what a sum is, is tested with `hone.tuning.combine`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hone.cli.combine import weighed
from hone.cli.main import main
from hone.tuning.lora import Lora
from hone.tuning.peft_io import load_adapter
from tests import nets

BASE = {"name": "tiny", "fingerprint": "shape-bytes"}


def product(folder: Path, path: str) -> torch.Tensor:
    stored = load_adapter(folder)
    a_RI, b_OR = stored.tensors[path]
    return stored.config.scale(path) * b_OR @ a_RI


def test_runs_and_adapters_with_weights_become_one_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rank in (("run/adapter", 2), ("b", 3)):
        policy = nets.policy(nets.llama, Lora(rank=rank, targets=("q_proj",)))
        policy.tuning.save(policy.model, tmp_path / name, base=BASE)
    (tmp_path / "run" / "adapter" / "chat_template.jinja").write_text("{{ messages }}")
    out = tmp_path / "sum"
    assert main(["combine", f"{tmp_path}/run=0.5", f"{tmp_path}/b", "-o", str(out)]) == 0
    path = "model.layers.0.self_attn.q_proj"
    wanted = 0.5 * product(tmp_path / "run" / "adapter", path) + product(tmp_path / "b", path)
    assert (product(out, path) - wanted).abs().max() <= 1e-6
    assert (out / "chat_template.jinja").is_file()
    assert "hone chat" in capsys.readouterr().out
    assert main(["combine", f"{tmp_path}/run", f"{tmp_path}/nowhere", "-o", str(out)]) == 2


def test_a_name_may_hold_the_mark() -> None:
    assert weighed("runs/lr=1e-4=0.5") == (Path("runs/lr=1e-4"), 0.5)
    assert weighed("runs/k=v") == (Path("runs/k=v"), 1.0)
