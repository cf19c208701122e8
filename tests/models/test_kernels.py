"""Every fused kernel agrees with its twin in plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM

from hone.core.types import Segment
from hone.models import attention, logprob
from hone.models.kernels import cpu, short_attention
from hone.models.kernels.fuse import fuse
from hone.models.kernels.norm import FusedRmsNorm, RmsNorm
from hone.models.kernels.peak import peak
from hone.models.kernels.swiglu import SwiGlu
from tests import nets

CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}
DTYPES = list(CLOSE)


def close(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    return bool((a.double() - b.double()).norm() <= CLOSE[dtype] * b.double().norm().clamp(min=1e-9))


def with_gradients(fn, *inputs: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = fn(*leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


@pytest.fixture(params=["fused", "twin"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the compiled kernels and with their twins."""
    cpu.library.cache_clear()
    if request.param == "twin":
        monkeypatch.setenv("HONE_KERNELS", "0")
    elif cpu.kernel("head", torch.zeros(1)) is None:
        pytest.skip("no C compiler here, the twins are all there is")
    yield request.param
    cpu.library.cache_clear()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(kernels: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, w = torch.randn(5, 7, 24).to(dtype), torch.rand(24).to(dtype) + 0.5

    def plain(x: Tensor, w: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(dtype, torch.float32))
        return (w * wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(dtype)

    for ours, theirs in zip(with_gradients(lambda x, w: RmsNorm.apply(x, w, 1e-6), x, w), with_gradients(plain, x, w), strict=True):
        assert close(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu(kernels: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate, up = 4 * torch.randn(3, 40).to(dtype), torch.randn(3, 40).to(dtype)
    plain = with_gradients(lambda g, u: torch.nn.functional.silu(g) * u, gate, up)
    for ours, theirs in zip(with_gradients(SwiGlu.apply, gate, up), plain, strict=True):
        assert close(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trainable", [False, True], ids=["frozen head", "trained head"])
def test_log_probabilities(kernels: str, dtype: torch.dtype, trainable: bool) -> None:
    torch.manual_seed(0)
    hidden, weight, target = torch.randn(50, 16).to(dtype), torch.randn(97, 16).to(dtype), torch.randint(0, 97, (50,))

    def run(fn):  # type: ignore[no-untyped-def]
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_(trainable)
        out = fn(h, w)
        out.backward(torch.linspace(-1, 2, 50, dtype=out.dtype))
        return [out.detach(), h.grad, *([w.grad] if trainable else [])]

    ours = run(lambda h, w: logprob.token_logprobs(h, logprob.Head(w), target))
    theirs = run(lambda h, w: (h.double() @ w.double().t()).log_softmax(-1)[torch.arange(50), target])
    for a, b in zip(ours, theirs, strict=True):
        assert close(a, b, dtype)


def test_log_probabilities_with_scale_bias_and_soft_cap() -> None:
    torch.manual_seed(0)
    hidden, weight, bias = (
        torch.randn(9, 16, dtype=torch.float64),
        torch.randn(31, 16, dtype=torch.float64),
        torch.randn(31, dtype=torch.float64),
    )
    target = torch.randint(0, 31, (9,))
    head = logprob.Head(weight, bias, scale=0.5, softcap=3.0)
    ours = with_gradients(lambda h: logprob.token_logprobs(h, head, target), hidden)

    def plain(h: Tensor) -> Tensor:
        return (3.0 * torch.tanh(0.5 * (h @ weight.t() + bias) / 3.0)).log_softmax(-1)[torch.arange(9), target]

    for a, b in zip(ours, with_gradients(plain, hidden), strict=True):
        assert close(a, b, torch.float64)


def test_a_number_that_is_not_finite_stays_visible(kernels: str) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        hidden = torch.full((2, 4), float("nan"), dtype=dtype)
        assert logprob.token_logprobs(hidden, logprob.Head(torch.ones(8, 4, dtype=dtype)), torch.tensor([0, 1])).isnan().all()
        assert RmsNorm.apply(hidden, torch.ones(4, dtype=dtype), 1e-6).isnan().all()
        assert SwiGlu.apply(hidden, hidden).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [True, False])
def test_short_attention_is_the_flash_kernel(kernels: str, dtype: torch.dtype, causal: bool) -> None:
    torch.manual_seed(0)
    q = torch.randn(3, 33 if causal else 21, 4, 8).to(dtype).transpose(1, 2)
    k, v = (torch.randn(3, 33, 2, 8).to(dtype).transpose(1, 2) for _ in range(2))
    aten = torch.ops.aten
    wide = [x.repeat_interleave(2, 1) for x in (k, v)]
    out, lse = aten._scaled_dot_product_flash_attention_for_cpu(q, *wide, 0.0, causal, scale=0.3)
    ours = short_attention.forward(q, k, v, causal, 0.3)
    assert close(ours[0], out, dtype) and close(ours[1], lse, dtype)
    grad = torch.randn_like(q)
    dq, dk, dv = aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, *wide, out, lse, 0.0, causal, scale=0.3)
    theirs = (dq, dk.unflatten(1, (2, 2)).sum(2), dv.unflatten(1, (2, 2)).sum(2))
    for a, b in zip(short_attention.backward(grad, (q, k, v), out, lse, causal, 0.3), theirs, strict=True):
        assert close(a, b, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_forest_attention_equals_separate_rows(dtype: torch.dtype) -> None:
    """A grandparent, a parent with two children and an unrelated root, against one row for each leaf."""
    torch.manual_seed(0)
    segments = (Segment(0, 9, -1), Segment(9, 5, 0), Segment(14, 70, 1), Segment(84, 3, 1), Segment(87, 12, -1))
    q, k, v = torch.randn(4, 99, 8, dtype=dtype), torch.randn(2, 99, 8, dtype=dtype), torch.randn(2, 99, 8, dtype=dtype)
    weight = torch.randn(4, 99, 8, dtype=dtype)
    paths = [[0, 1, 2], [0, 1, 3], [4]]

    def forest(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention.ForestAttention.apply(q, k, v, attention.plan(segments), 0.3) * weight

    def rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.zeros_like(q)
        for path in paths:
            index = torch.cat([torch.arange(segments[i].start, segments[i].start + segments[i].length) for i in path])
            wide = [x[:, index].repeat_interleave(2, 0) for x in (k, v)]
            row = torch.nn.functional.scaled_dot_product_attention(q[:, index], *wide, is_causal=True, scale=0.3)
            fresh = torch.tensor([segments[i].start for i in path if not out[:, segments[i].start].any()])
            own = torch.cat(
                [
                    (index == start).nonzero()[0] + torch.arange(next(s.length for s in segments if s.start == start))
                    for start in fresh.tolist()
                ]
            )
            out = out.index_add(1, index[own], row[:, own])
        return out * weight

    leaves = [[x.clone().requires_grad_() for x in (q, k, v)] for _ in range(2)]
    results = [fn(*inputs) for fn, inputs in zip((forest, rows), leaves, strict=True)]
    assert close(*results, dtype)
    for result in results:
        result.sum().backward()
    for a, b in zip(*leaves, strict=True):
        assert close(a.grad, b.grad, dtype)


def test_fuse_replaces_what_is_the_same_and_nothing_else() -> None:
    assert fuse(nets.qwen3()) == 2 * 5 + 1  # two layers of four norms and an MLP, and the last norm
    assert fuse(nets.gpt2()) == 0
    gemma = Gemma2ForCausalLM(Gemma2Config(**nets.SHAPE))
    nn.init.normal_(gemma.model.norm.weight)
    fuse(gemma)
    assert not any(isinstance(module, FusedRmsNorm) for module in gemma.modules())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 5])
def test_peak(kernels: str, dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    x = (torch.randn(rows, 301) * 9).to(dtype)
    x[0, 300], x[-1, [7, 9]] = 60, 50
    found = peak(x)
    assert torch.equal(found.token, torch.stack([(row == row.max()).nonzero()[0, 0] for row in x]))
    assert torch.equal(found.logit.to(dtype), x.amax(-1))
    assert close(found.total, x.double().logsumexp(-1), torch.float32 if dtype == torch.float64 or kernels == "fused" else dtype)
    x[-1, 3] = float("nan")
    assert peak(x).total[-1].isnan()
