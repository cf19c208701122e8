"""Adapters side by side and switched; LoRAs added up exactly, or to the best of a smaller rank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.tuning import METHODS, trainable
from hone.tuning.combine import Shelf, add_up, best_of_rank
from hone.tuning.lora import Lora, lora_layers
from hone.tuning.opening import open_adapter
from tests import nets

TOKENS = torch.arange(3, 23)[None]
BASE = {"name": "tiny", "fingerprint": "shape-bytes"}


def make() -> nn.Module:
    torch.manual_seed(0)
    return nets.llama().eval()


@torch.no_grad()
def said(model: nn.Module) -> Tensor:
    logits: Tensor = model(input_ids=TOKENS).logits
    return logits


def adapter(folder: Path, method: str, seed: int, **settings: object) -> Tensor:
    """Write an adapter, and return what its model says."""
    model, tuning = make(), METHODS[method](**settings)
    tuning.attach(model, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainable(model).values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    tuning.save(model, folder, base=BASE)
    return said(model)


def test_adapters_of_several_methods_side_by_side(tmp_path: Path) -> None:
    cases = {"poem": ("lora", {"rank": 4}), "law": ("dora", {"rank": 2}), "code": ("bitfit", {}), "news": ("ia3", {})}
    says = {name: adapter(tmp_path / name, method, i, **settings) for i, (name, (method, settings)) in enumerate(cases.items())}
    model = make()
    shelf = Shelf(model, base=BASE)
    for name in cases:
        shelf.add(name, tmp_path / name)
    for name in ("poem", "news", None, "law", "law", "code", "poem"):
        shelf.use(name)
        assert (said(model) - (says[name] if name else said(make()))).abs().max() == 0
    with pytest.raises(HoneError, match="did you mean 'poem'"):
        shelf.use("poems")


def changes(folder: Path) -> dict[str, Tensor]:
    model, tuning = make(), open_adapter(folder).tuning
    tuning.attach(model, seed=0)
    tuning.load(model, folder, base=BASE)
    return {path: layer.delta().detach() for path, layer in lora_layers(model).items()}


def test_a_weighted_sum_is_exact(tmp_path: Path) -> None:
    adapter(tmp_path / "a", "lora", 1, rank=3, targets=("q_proj", "up_proj"))
    adapter(tmp_path / "b", "lora", 2, rank=2, targets=("q_proj", "o_proj"), rslora=True)
    add_up({tmp_path / "a": 0.7, tmp_path / "b": -0.4}, tmp_path / "sum")
    a, b, both = (changes(tmp_path / name) for name in ("a", "b", "sum"))
    for path, change in both.items():
        wanted = 0.7 * a.get(path, 0.0) - 0.4 * b.get(path, 0.0)
        assert (change - wanted).abs().max() <= 1e-6


def test_a_sum_of_a_smaller_rank_is_the_best_one(tmp_path: Path) -> None:
    adapter(tmp_path / "a", "lora", 1, rank=3)
    adapter(tmp_path / "b", "lora", 2, rank=3)
    add_up({tmp_path / "a": 1.0, tmp_path / "b": 1.0}, tmp_path / "whole")
    add_up({tmp_path / "a": 1.0, tmp_path / "b": 1.0}, tmp_path / "small", rank=2)
    small = changes(tmp_path / "small")
    for path, whole in changes(tmp_path / "whole").items():
        u, s, v = torch.linalg.svd(whole)
        assert (small[path] - u[:, :2] * s[:2] @ v[:2]).norm() <= 1e-5 * whole.norm()


def test_the_full_rank_loses_nothing() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 9, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    a2, b2 = best_of_rank((a, b), 4)
    assert torch.allclose(b2 @ a2, b @ a)


def test_what_is_no_sum_is_refused(tmp_path: Path) -> None:
    adapter(tmp_path / "a", "lora", 1, rank=3)
    adapter(tmp_path / "b", "dora", 2, rank=3)
    with pytest.raises(HoneError, match="M044"):
        add_up({tmp_path / "a": 1.0, tmp_path / "b": 1.0}, tmp_path / "sum")


def test_a_fresh_method_may_join_a_shelf() -> None:
    model = make()
    shelf = Shelf(model, base=BASE)
    shelf.add("new", Lora(rank=2))
    assert lora_layers(model)
    shelf.use(None)
    assert not lora_layers(model)
