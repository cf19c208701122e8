"""What the machine says about itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hone.plan.hardware import Gpu, gpus, hardware, parse_gpus

SMI = """\
0, GPU-aaaa, NVIDIA H200, 143771, 143000, 570.1, 9.0
1, GPU-bbbb, Tesla T4, 15360, 15000, 570.1, 7.5
2, GPU-cccc, Broken Card, [N/A], [N/A], 570.1, [N/A]
"""


def test_this_machine(tmp_path: Path) -> None:
    found = hardware(tmp_path / "not" / "yet" / "there")
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.disk_free > 0
    assert found.memory is None or found.memory > 2**28
    assert found.memory is None or found.memory_free is None or 0 < found.memory_free <= found.memory


def test_gpus_are_read_and_filtered() -> None:
    h200, t4 = parse_gpus(SMI, {})
    assert h200 == Gpu("NVIDIA H200", 143771 * 2**20, 143000 * 2**20, "570.1", (9, 0))
    assert h200.bf16
    assert not t4.bf16
    assert parse_gpus(SMI, {"CUDA_VISIBLE_DEVICES": "1"}) == (t4,)
    assert parse_gpus(SMI, {"CUDA_VISIBLE_DEVICES": "GPU-bbbb, 0"}) == (t4, h200)
    assert parse_gpus(SMI, {"CUDA_VISIBLE_DEVICES": ""}) == parse_gpus("", {}) == ()


@pytest.mark.parametrize("script", ["exit 9", "echo nonsense; exit 1", "kill -9 $$"])
def test_an_nvidia_smi_that_fails_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpus() == ()


def test_an_nvidia_smi_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<END\n{SMI}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu.name for gpu in gpus()] == ["NVIDIA H200", "Tesla T4"]
