"""Products with matrices that are stored in bf16: as exact as the type they are computed in, whatever the processor has."""

from __future__ import annotations

import pytest
import torch

from hone.tuning.arithmetic import PIECE, back, times, working
from hone.tuning.lowrank import LowRank
from hone.tuning.packed import product


def _normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("outputs", [3, PIECE // 64 + 5], ids=["one piece", "two pieces"])
def test_a_narrow_weight_multiplies_as_its_widened_copy(outputs: int) -> None:
    x, weight, bias = _normal(7, 64, seed=0), _normal(outputs, 64, seed=1).bfloat16(), _normal(outputs, seed=2).bfloat16()
    torch.testing.assert_close(times(x, weight, bias), torch.nn.functional.linear(x, weight.float(), bias.float()), atol=1e-4, rtol=1e-5)
    grad = _normal(7, outputs, seed=3)
    torch.testing.assert_close(back(grad, weight, torch.empty(7, 64)), grad @ weight.float(), atol=1e-3, rtol=1e-4)


def test_autograd_sees_through_a_narrow_weight_that_moves() -> None:
    x, weight = _normal(7, 8, seed=0), torch.nn.Parameter(_normal(5, 8, seed=1).bfloat16())
    times(x, weight).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad.float(), x.sum(0).expand(5, 8), atol=0.05, rtol=0.02)


def test_only_bf16_on_a_processor_is_ever_widened() -> None:
    assert {working(torch.zeros(1, dtype=kind)) for kind in (torch.float32, torch.float64)} == {torch.float32, torch.float64}
    assert working(torch.zeros(1, dtype=torch.bfloat16, device="meta")) is torch.bfloat16


def test_a_low_rank_layer_in_bf16_is_its_fp32_self_rounded() -> None:
    x, weight, bias = (_normal(*shape, seed=i).bfloat16() for i, shape in enumerate([(9, 32), (16, 32), (16,)]))
    a, b = _normal(4, 32, seed=4) / 6, _normal(16, 4, seed=5) / 2
    found = [_through(x, a, b, lambda *args: LowRank.apply(args[0], weight, bias, args[1], args[2], 0.5))]
    found.append(_through(x.float(), a, b, lambda *args: LowRank.apply(args[0], weight.float(), bias.float(), args[1], args[2], 0.5)))
    for narrow, wide in zip(*found, strict=True):
        assert (narrow.float() - wide).norm() <= 0.01 * wide.norm()


def test_a_frozen_layer_in_bf16_gives_the_same_and_the_same_gradient() -> None:
    x, weight = _normal(2, 9, 32, seed=0).bfloat16(), _normal(16, 32, seed=1).bfloat16()
    a = b = torch.zeros(1)
    found = [
        _through(inputs, a, b, lambda y, *_, held=held: product(y, held)) for inputs, held in ((x, weight), (x.float(), weight.float()))
    ]
    for narrow, wide in zip(*(each[:2] for each in found), strict=True):
        assert narrow.shape == wide.shape and (narrow.float() - wide).norm() <= 0.01 * wide.norm()


def _through(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, function) -> list[torch.Tensor]:  # type: ignore[no-untyped-def]
    """The output, and the gradients of the three."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, a, b)]
    y = function(*leaves)
    (y.float() * torch.arange(y.shape[-1])).sum().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]
