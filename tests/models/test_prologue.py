"""Keys and values before a sequence reach every query in every layout, and a gate weighs them token by token, causally."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.data.batching import pack
from hone.models import decode
from hone.models.decode import KVCache
from hone.models.heads import head_of
from hone.models.policy import Policy, using_attention
from hone.models.prologue import in_rows, lead
from hone.tuning.base import Beside, prologue_of, replace
from hone.tuning.prefix import Prefix, keys_values_of
from hone.tuning.prompt import Prompt
from tests import nets
from tests.models.test_decode import build, text

LOGP = "logp"
GROUPS = nets.singles(4) + nets.pairs(2)
BOTH = [Prefix(length=5), Prompt(length=5)]


class Gated(Beside):
    """An attention that weighs the prologue by a logit for each token of its input."""

    def __init__(self, base: nn.Module, logit: float | None) -> None:
        super().__init__(base)
        like = next(base.parameters())
        weight = torch.linspace(-1, 1, 32, dtype=like.dtype) if logit is None else torch.zeros(32, dtype=like.dtype)
        self.weight, self.logit = nn.Parameter(weight), logit or 0.0

    def forward(self, *args: Any, **kw: Any) -> Any:
        hidden = args[0] if args else kw["hidden_states"]
        gate = nn.functional.logsigmoid(hidden @ self.weight + self.logit)
        return self.base(*args, **kw, prologue_gate=gate)


def gated(family: str, logit: float | None, dtype: torch.dtype = torch.float64) -> Policy:
    policy = nets.policy(nets.MODELS[family], Prefix(length=5, start="random"), dtype)
    for _ in replace(policy.model, lambda name, _: name.endswith((".self_attn", ".attn")), lambda _, old: Gated(old, logit)):
        pass
    return policy


def gradients(policy: Policy) -> tuple[Tensor, Tensor]:
    logp = policy.signals(pack(GROUPS), LOGP).logp
    policy.model.zero_grad()
    (logp * torch.linspace(-1, 1, len(logp), dtype=logp.dtype)).sum().backward()
    return logp.detach(), torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.requires_grad])


@pytest.mark.parametrize("family", nets.MODELS)
def test_the_gate_and_its_gradient_are_the_same_in_a_forest_and_in_plain_products(family: str) -> None:
    policy = gated(family, None)
    assert policy.packed
    packed, d_packed = gradients(policy)
    policy.packed = False
    padded, d_padded = gradients(policy)
    assert (packed - padded).abs().max() <= 1e-12
    assert (d_packed - d_padded).norm() <= 1e-12 * d_packed.norm()
    gates = [p.grad for name, p in policy.model.named_parameters() if name.endswith((".attn.weight", ".self_attn.weight"))]
    assert len(gates) == 2
    assert all(grad.norm() > 0 for grad in gates)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("family", nets.MODELS)
def test_an_open_gate_is_the_prefix_and_a_shut_one_is_none(family: str, packed: bool) -> None:
    def says(logit: float | None) -> Tensor:
        policy = gated(family, logit)
        policy.packed = packed
        keys_values_of(policy.model).positions = 0
        return gradients(policy)[0]

    def ungated(prologue: bool) -> Tensor:
        policy = nets.policy(nets.MODELS[family], Prefix(length=5, start="random"), torch.float64)
        policy.packed = packed
        keys_values_of(policy.model).positions = 0
        if prologue:
            return gradients(policy)[0]
        with torch.no_grad(), policy.tuning.disabled(policy.model):
            return policy.signals(pack(GROUPS), LOGP).logp

    assert (says(1e4) - ungated(True)).abs().max() == 0
    assert (says(-1e4) - ungated(False)).abs().max() <= 1e-12
    assert (says(0.0) - ungated(True)).abs().max() > 1e-4


@torch.no_grad()
def own_logits(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    """By the padded layout, which takes keys and values as they come."""
    name = "hone_padded" if not prologue_of(model).virtual_tokens else "eager"  # type: ignore[union-attr]
    ids = torch.tensor([tokens])
    with using_attention(model, name):
        hidden = model.base_model(**in_rows(model, ids, torch.ones_like(ids, dtype=torch.bool)), use_cache=False).last_hidden_state
    return head_of(model).logits(hidden[:, -1])[0].float()


@contextmanager
def attached(model: PreTrainedModel, tuning: Prefix | Prompt) -> Iterator[KVCache]:
    tuning.attach(model, seed=0)
    with using_attention(model, decode.NAME), torch.no_grad():
        yield KVCache(4, 48, prologue_of(model))


@pytest.mark.parametrize("tuning", BOTH, ids=["prefix", "prompt"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi", "mistral", "gemma2", "gpt_oss"])
def test_windows_caps_and_sinks_are_honoured_beside_it(family: str, tuning: Prefix | Prompt) -> None:
    model, texts = build(family), [text(30), text(19, 1), text(3, 2)]
    if family in ("mistral", "gemma2", "gpt_oss") and isinstance(tuning, Prefix):
        tuning = Prefix(length=5, start="random")  # a short window keeps too little of a text to start from
    with attached(model, tuning) as cache:
        assert decode.probe(model, "eager").works
        ids = lead(model)
        rows = [ids + tokens for tokens in texts]
        first = [row[cache.filled : len(ids) + max(1, len(row) // 3)] for row in rows]
        decode.forward(model, head_of(model), cache, range(3), first, [cache.filled] * 3)
        starts = [cache.filled + len(new) for new in first]
        moving = [i for i in range(3) if len(rows[i]) > starts[i]]
        logits = decode.forward(model, head_of(model), cache, moving, [rows[i][starts[i] :] for i in moving], [starts[i] for i in moving])
        own = torch.stack([own_logits(model, texts[i]) for i in moving])
    torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-4)
