"""Which layout a model gets is found by trying, and what its head does is checked against its own logits."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from hone.core.errors import HoneError
from hone.core.types import Segment
from hone.data.batching import pack
from hone.models import attention
from hone.models.policy import Policy
from hone.tuning.base import Untouched
from tests import nets


def logp(policy: Policy) -> torch.Tensor:
    return policy.signals(pack(nets.singles(5) + nets.pairs(2)), "logp").logp.detach()


def own_rows(model: PreTrainedModel) -> torch.Tensor:
    """The same by the model's own forward, one sequence at a time."""
    model.set_attn_implementation("eager")
    found = []
    for group in nets.singles(5) + nets.pairs(2):
        for sequence in group:
            ids = torch.tensor([sequence.tokens])
            scores = model(input_ids=ids).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
            found.append(scores[torch.tensor(sequence.weights[1:]) != 0])
    return torch.cat(found).detach()


@pytest.mark.parametrize("name", nets.MODELS)
def test_log_probabilities_are_the_models_own(name: str) -> None:
    policy = nets.policy(nets.MODELS[name], Untouched())
    assert policy.packed
    ours = logp(policy)
    assert (ours - own_rows(policy.model)).abs().max() < 1e-5


def test_a_window_shorter_than_the_row_takes_the_padded_layout() -> None:
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**nets.SHAPE, sliding_window=12)).eval()
    policy = Policy.of(model, Untouched())
    ours = logp(policy)
    assert (ours - own_rows(model)).abs().max() < 1e-5
    with pytest.raises(HoneError) as caught:
        plan = attention.plan((Segment(0, 40, -1),))
        attention.attend(
            model, torch.zeros(1, 4, 40, 8), torch.zeros(1, 2, 40, 8), torch.zeros(1, 2, 40, 8), None, segments=plan, sliding_window=12
        )
    assert caught.value.code == "M010"


def test_soft_caps_are_honoured_or_padded_never_ignored() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(**nets.SHAPE, sliding_window=16, attn_logit_softcapping=5.0, final_logit_softcapping=3.0, query_pre_attn_scalar=8)
    model = Gemma2ForCausalLM(config).eval()
    policy = Policy.of(model, Untouched())
    assert not policy.packed
    assert (logp(policy) - own_rows(model)).abs().max() < 1e-5


def test_the_attention_needs_its_plan() -> None:
    with pytest.raises(HoneError) as caught:
        attention.attend(torch.nn.Identity(), torch.zeros(1), torch.zeros(1), torch.zeros(1), None)
    assert caught.value.code == "M010"
