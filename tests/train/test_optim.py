"""Masters lose nothing, the schedule is what it says, and AdamW is AdamW."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hone.core.errors import HoneError
from hone.plan.memory import MOMENTS
from hone.train.optim import Masters, adamw, moments, rate_at
from hone.train.settings import OptimSettings

SCHEDULES = ("linear", "cosine", "constant")
runs = st.integers(1, 400).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total)))
ratios = st.sampled_from([0.0, 0.03, 0.1, 0.5, 0.99])


def optim(schedule: str = "linear", **values: object) -> OptimSettings:
    return OptimSettings(learning_rate=1e-3, schedule=schedule, **values)  # type: ignore[arg-type]


@given(runs, st.sampled_from(SCHEDULES), ratios)
def test_the_rate_is_never_zero_nor_above_its_peak(run: tuple[int, int], schedule: str, warmup: float) -> None:
    total, step = run
    assert 0 < rate_at(step, total, optim(schedule, warmup_ratio=warmup)) <= 1e-3


@given(st.integers(1, 200), st.sampled_from(SCHEDULES), ratios)
def test_the_rate_rises_in_the_warm_up_and_then_never(total: int, schedule: str, warmup: float) -> None:
    rates = [rate_at(step, total, optim(schedule, warmup_ratio=warmup)) for step in range(1, total + 1)]
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(1e-3)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))


def test_rates_by_hand() -> None:
    settings = {name: optim(name, warmup_ratio=0.2) for name in SCHEDULES}
    linear, cosine, constant = ([1e3 * rate_at(step, 10, settings[name]) for step in range(1, 11)] for name in SCHEDULES)
    assert linear == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert constant == pytest.approx([0.5] + [1] * 9)
    assert cosine[:3] == pytest.approx([0.5, 1, 1])
    assert cosine[6] == pytest.approx(0.5)
    assert cosine[9] == pytest.approx(0.5 * (1 - math.cos(math.pi / 8)))


def test_a_wide_parameter_is_its_own_master() -> None:
    wide, narrow = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    masters = Masters([wide, narrow, nn.Parameter(torch.zeros(2, dtype=torch.float64))])
    kept = list(masters)
    assert kept[0] is wide
    assert kept[1] is not narrow
    assert [m.dtype for m in kept] == [torch.float32, torch.float32, torch.float64]


def test_many_small_gradients_of_bf16_add_up_exactly() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(50, dtype=torch.bfloat16))
    masters = Masters([weight])
    pushes = torch.cat([torch.full((1, 50), 256.0), torch.rand(300, 50)]).bfloat16()
    for push in pushes:
        (weight * push).sum().backward()
        assert weight.grad is None, "the narrow gradient should be gone"
    exact = pushes.double().sum(0)
    (found,) = masters.gradients()
    assert found.dtype == torch.float32
    assert (found.double() - exact).abs().max() <= 1e-6 * exact.max()
    naive = torch.zeros(50, dtype=torch.bfloat16)
    for push in pushes:
        naive += push
    assert (naive.double() - exact).abs().min() > 50, "the case is too easy to tell"


def test_steps_smaller_than_bf16_can_hold_are_not_lost() -> None:
    weight = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    masters = Masters([weight])
    optimizer = adamw(masters, optim())
    for group in optimizer.param_groups:
        group["lr"] = 1e-4
    for _ in range(60):
        (weight * 3.0).sum().backward()
        optimizer.step()
        masters.publish()
        optimizer.zero_grad(set_to_none=True)
    assert next(iter(masters)).detach() == pytest.approx(torch.full((4,), 1 - 60e-4), abs=1e-5)
    assert torch.equal(weight, torch.full((4,), 1 - 60e-4).bfloat16())


def test_a_parameter_that_nothing_touched_has_a_zero_gradient() -> None:
    touched, other = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    masters = Masters([touched, other])
    touched.sum().backward()
    assert [g.tolist() for g in masters.gradients()] == [[1, 1, 1], [0, 0]]


def test_adamw_equals_the_equations_of_the_paper() -> None:
    torch.manual_seed(0)
    settings = optim(weight_decay=0.1, beta1=0.8, beta2=0.9)
    matrix, vector = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))
    optimizer = adamw(Masters([matrix, vector]), settings)
    expected = [(p.detach().double(), torch.zeros_like(p).double(), torch.zeros_like(p).double()) for p in (matrix, vector)]
    for step in range(1, 6):
        for i, (parameter, decay) in enumerate(((matrix, 0.1), (vector, 0.0))):
            parameter.grad = torch.randn_like(parameter)
            value, mean, square = expected[i]
            gradient = parameter.grad.double()
            mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
            direction = (mean / (1 - 0.8**step)) / ((square / (1 - 0.9**step)).sqrt() + 1e-8)
            expected[i] = (value * (1 - 1e-3 * decay) - 1e-3 * direction, mean, square)
        optimizer.step()
    for parameter, (value, _, _) in zip((matrix, vector), expected, strict=True):
        assert (parameter.double() - value).abs().max() < 1e-6


def test_eight_bit_moments_go_the_way_of_the_wide_ones() -> None:
    pytest.importorskip("bitsandbytes", reason="8-bit moments are bitsandbytes'")
    found = {}
    for name in ("adamw", "adamw_8bit"):
        torch.manual_seed(0)
        matrix = nn.Parameter(torch.randn(64, 128))
        goal, start = torch.randn(64, 128), matrix.detach().clone()
        masters = Masters([matrix])
        optimiser = adamw(masters, optim(name=name))
        optimiser.param_groups[0]["lr"] = 1e-2
        for _ in range(30):
            matrix.grad = matrix.detach() - goal
            optimiser.step()
        found[name] = matrix.detach() - start
        taken = sum(t.numel() * t.element_size() for t in moments(optimiser, matrix).values())
        assert taken / matrix.numel() == pytest.approx(MOMENTS[name], abs=2e-3)
    far = (found["adamw"] - found["adamw_8bit"]).norm() / found["adamw"].norm()
    assert 0 < far < 0.05


def test_a_paged_optimiser_wants_a_gpu() -> None:
    pytest.importorskip("bitsandbytes", reason="8-bit moments are bitsandbytes'")
    with pytest.raises(HoneError, match="adamw_8bit") as fault:
        adamw(Masters([nn.Parameter(torch.zeros(2, 2))]), optim(name="paged_adamw_8bit"))
    assert fault.value.code == "M020"
