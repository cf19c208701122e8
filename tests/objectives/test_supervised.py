"""Objectives against closed forms and against plain cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch

from hone.core.errors import HoneError
from hone.core.types import Batch, Signals
from hone.data.batching import pack
from hone.objectives import OBJECTIVES
from hone.tuning.full import Full
from tests import nets


def signals(batch: Batch, logp: torch.Tensor) -> Signals:
    return Signals(batch, logp_N=logp)


def test_sft_is_weighted_cross_entropy_of_the_model_itself() -> None:
    policy = nets.policy(nets.llama, Full(), torch.float64)
    groups = nets.singles(6)
    batch = pack(groups)
    ours = OBJECTIVES["sft"](policy.signals(batch, "logp")).total
    policy.model.set_attn_implementation("sdpa")
    theirs = torch.zeros((), dtype=torch.float64)
    for (sequence,) in groups:
        ids = torch.tensor([sequence.tokens])
        logp = policy.model(input_ids=ids).logits[0].log_softmax(-1)
        weights = torch.tensor(sequence.weights[1:], dtype=torch.float64)
        theirs -= (logp[:-1].gather(1, ids[0, 1:, None])[:, 0] * weights).sum()
    assert torch.allclose(ours, theirs, rtol=1e-12)
    assert batch.count("token") == sum(sum(s.weights[1:]) for (s,) in groups)


def test_a_uniform_model_loses_log_v() -> None:
    batch = pack(nets.singles(3))
    logp = torch.full((len(batch.read_N),), -math.log(128.0))
    assert math.isclose(float(OBJECTIVES["sft"](signals(batch, logp)).total) / batch.count("token"), math.log(128), rel_tol=1e-6)
    assert math.isclose(float(OBJECTIVES["cpt"](signals(batch, logp)).total) / batch.count("token"), math.log(128), rel_tol=1e-6)


def test_focus_scales_each_token_by_its_own_probability() -> None:
    batch = pack(nets.singles(3))
    logp = -torch.rand(len(batch.read_N)).requires_grad_()
    OBJECTIVES["sft"].bind(focus=1.0)(signals(batch, logp)).total.backward()
    with torch.no_grad():
        expected = -batch.weight_N * logp.exp()  # d/dlogp of -p logp with p held fixed
    leaf = logp.grad_fn.next_functions[0][0].variable  # type: ignore[union-attr]
    assert torch.allclose(-leaf.grad, expected)


def test_settings_come_from_the_signature() -> None:
    with pytest.raises(HoneError) as caught:
        OBJECTIVES["sft"].bind(focos=1.0)
    assert caught.value.code == "C002" and "focus" in str(caught.value)
    with pytest.raises(HoneError) as caught:
        OBJECTIVES["sft"].bind(focus=2.0)
    assert caught.value.code == "C001"


def test_every_objective_documents_its_paper_or_its_meaning() -> None:
    for name, objective in OBJECTIVES.items():
        assert objective.fn.__doc__ and len(objective.fn.__doc__) > 40, name
