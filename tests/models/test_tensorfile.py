"""The streaming writer makes files that the safetensors library reads, whatever the tensors are like."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hone.models import tensorfile

TYPES = list(tensorfile._NAMES)


def through(tmp_path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    content = b"".join(tensorfile.pieces(tensors))
    assert len(content) == tensorfile.size(tensors)
    (tmp_path / "t.safetensors").write_bytes(content)
    return load_file(tmp_path / "t.safetensors")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type_keeps_its_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    x = torch.randn(3, 5).mul(7).to(dtype)
    got = through(tmp_path, {"x": x})["x"]
    assert got.dtype == dtype and got.shape == x.shape
    assert torch.equal(got.view(torch.uint8), x.view(torch.uint8))


def test_odd_shapes_and_layouts(tmp_path: Path) -> None:
    tensors = {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "turned": torch.arange(6.0).reshape(2, 3).t(),
        "part": torch.arange(10)[2::3],
        "gradient": torch.ones(2, requires_grad=True),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "Ünïcode/名": torch.tensor([True, False, True]),
    }
    got = through(tmp_path, tensors)
    assert set(got) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(got[name].nan_to_num(9.0), tensor.detach().nan_to_num(9.0)), name


def test_no_tensors(tmp_path: Path) -> None:
    assert through(tmp_path, {}) == {}


def test_large_tensors_come_in_pieces_and_are_not_copied() -> None:
    tensors = {"big": torch.zeros(3 * tensorfile.PIECE // 4 + 1), "more": torch.zeros(10)}
    tracemalloc.start()
    sizes = [len(piece) for piece in tensorfile.pieces(tensors)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(sizes) == tensorfile.PIECE and sum(sizes) == tensorfile.size(tensors)
    assert peak < 100_000
