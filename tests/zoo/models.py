"""Bugs between tokens and log-probabilities: masks, positions, windows, heads, kernels, references, caches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.types import Batch, Group, Needs, Segment, Signals
from hone.models.kernels.norm import FusedRmsNorm
from hone.models.kernels.swiglu import FusedGatedMlp
from hone.models.logprob import Head
from hone.models.policy import Policy, evaluating
from hone.prove import Subject
from hone.prove.writing import LENGTH
from hone.tuning.unipelt import Gate, GatedAdapter
from tests.zoo.base import as_policy, bug

UNKNOWN = "known from practice; no thread at hand"


def with_policy(s: Subject, kind: type[Policy]) -> Subject:
    """The subject with policies of another class."""
    return replace(s, policy=as_policy(kind, s))


def with_batches(s: Subject, change: Callable[[Batch], Batch]) -> Subject:
    """The subject with every batch changed."""
    return replace(s, batches=lambda groups, budget, share: [change(one) for one in s.batches(groups, budget, share)])


@bug("causality", shipped="trl#1230, trl#805, LLaMA-Factory#2289, functionary#265")
def packing_without_a_document_mask(s: Subject) -> Subject:
    """Documents that are packed into one row see each other."""

    class OneDocument(Policy):
        def hidden(self, batch: Batch) -> Tensor:
            return super().hidden(replace(batch, segments=(Segment(0, len(batch.tokens_T), -1),)) if self.packed else batch)

    return with_policy(s, OneDocument)


@bug("layouts", on="absolute", shipped="trl#3067")
def packing_without_new_positions(s: Subject) -> Subject:
    """Positions run on from one packed document into the next."""

    class RunningOn(Policy):
        def hidden(self, batch: Batch) -> Tensor:
            return super().hidden(replace(batch, positions_T=torch.arange(len(batch.tokens_T))) if self.packed else batch)

    return with_policy(s, RunningOn)


@bug("plain-sum", shipped=UNKNOWN)
def shifted_twice(s: Subject) -> Subject:
    """Labels are shifted by the data and by the loss, so each state predicts the token after the next."""
    return with_batches(s, lambda batch: replace(batch, read_N=(batch.read_N - 1).clamp(min=0)))


@bug("causality", shipped=UNKNOWN)
def not_shifted(s: Subject) -> Subject:
    """Each state predicts its own token, which it has seen; the loss falls to nothing."""
    return with_batches(s, lambda batch: replace(batch, read_N=batch.read_N + 1))


@bug("layouts", on="dpo", shipped=UNKNOWN)
def padding_in_the_log_probability(s: Subject) -> Subject:
    """The log-probability of an answer is summed over its padding too."""

    class Padded(Policy):
        def signals(self, batch: Batch, needs: str | Needs) -> Signals:
            out = super().signals(batch, needs)
            if self.packed or out.logp_N is None:
                return out
            lengths = torch.tensor([len(batch.path(leaf)) for leaf in batch.leaf_S])
            missing_S = (lengths.max() - lengths).to(out.logp_N.dtype)
            counts_S = torch.bincount(batch.row_N, minlength=batch.sequences).clamp(min=1)
            out.logp_N = out.logp_N * (1 + missing_S / counts_S)[batch.row_N]
            return out

    return with_policy(s, Padded)


@bug("plain-sum", shipped=UNKNOWN)
def weights_of_tokens_ignored(s: Subject) -> Subject:
    """Every token that is read counts as one, whatever weight its row gives it."""
    halves = [tuple(replace(one, weights=[w / (1 + j % 2) for j, w in enumerate(one.weights)]) for one in group) for group in s.groups]
    ignored = with_batches(s, lambda batch: replace(batch, weight_N=torch.ones_like(batch.weight_N)))
    return replace(ignored, groups=halves)


@bug("plain-sum", on="window", shipped=UNKNOWN)
def sliding_window_lost(s: Subject) -> Subject:
    """A faster attention takes no notice of the model's sliding window."""

    def make() -> Policy:
        one = s.policy()
        config: Any = one.model.config
        config.sliding_window = None
        for module in one.model.modules():
            if "sliding_window" in vars(module):
                vars(module)["sliding_window"] = None
        return one

    return replace(s, policy=make)


@bug("start", on="stretched", shipped=UNKNOWN)
def rope_scaling_lost(s: Subject) -> Subject:
    """Positions are not scaled as the configuration says, so the model of the run is not the base."""

    def make() -> Policy:
        one = s.policy()
        rotary: Any = one.model.get_submodule("model.rotary_emb")
        rotary.inv_freq = rotary.inv_freq * 4.0
        return one

    return replace(s, policy=make)


@bug("plain-sum", on="softcap", shipped=UNKNOWN)
def soft_cap_of_the_head_lost(s: Subject) -> Subject:
    """A chunked loss leaves out the soft cap of the logits."""

    class Uncapped(Policy):
        def head(self, temperature: float = 1.0) -> Head:
            return replace(super().head(temperature), softcap=None)

    return with_policy(s, Uncapped)


@bug("plain-sum", on="distill", shipped="trl#5731")
def divergence_the_wrong_way_round(s: Subject) -> Subject:
    """A fast divergence weighs teacher and student the other way round."""

    class Turned(Policy):
        def signals(self, batch: Batch, needs: str | Needs) -> Signals:
            assert not isinstance(needs, str)
            how = needs.get("divergence")
            return super().signals(batch, needs if how is None else {**needs, "divergence": {**how, "beta": 1 - how["beta"]}})

    return with_policy(s, Turned)


def with_module(s: Subject, old: type[nn.Module], new: Callable[[Any], nn.Module]) -> Subject:
    """The subject whose models have another module wherever they have one of a kind."""

    def make() -> Policy:
        one = s.policy()
        for name, module in list(one.model.named_modules()):
            if type(module) is old:
                one.model.set_submodule(name, new(module))
        return one

    return replace(s, policy=make)


class _HalfNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        rstd = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight_D, rstd)
        return x * rstd * weight_D

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight_D, rstd = ctx.saved_tensors
        return grad * weight_D * rstd, (grad * x * rstd).flatten(0, -2).sum(0), None


class HalfNorm(FusedRmsNorm):
    """Its forward is right, and its backward forgets that the norm depends on its input."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        out: Tensor = _HalfNorm.apply(hidden_states, self.weight, self.variance_epsilon)
        return out


@bug("kernels", shipped=UNKNOWN)
def kernel_with_half_a_backward(s: Subject) -> Subject:
    """A fused norm is right forward and wrong backward, so only the gradient is spoiled."""
    return with_module(s, FusedRmsNorm, lambda old: HalfNorm(old.weight, old.variance_epsilon))


class GeluMlp(FusedGatedMlp):
    """The same projections under another activation."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(torch.nn.functional.gelu(self.gate_proj(x)) * self.up_proj(x))
        return out


@bug("kernels", shipped=UNKNOWN)
def kernel_with_another_activation(s: Subject) -> Subject:
    """A fused layer is put in by the names of its parts, though the model's activation is another."""
    return with_module(s, FusedGatedMlp, lambda old: GeluMlp(old.gate_proj, old.up_proj, old.down_proj))


class MeanGate(nn.Module):
    """Looks at the mean of the whole sequence."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gate(x).mean(-2, keepdim=True)
        return out


@bug("causality", on="unipelt", shipped="AdapterHub's UniPELT; arXiv 2110.07577")
def gates_that_look_ahead(s: Subject) -> Subject:
    """A gate is averaged over the whole sequence, so a token's gate depends on tokens that come after it."""

    def make() -> Policy:
        one = s.policy()
        for module in one.model.modules():
            if isinstance(module, GatedAdapter) and module.gate is not None:
                module.add_module("gate", MeanGate(module.gate))
        return one

    return replace(s, policy=make)


@bug("measuring", on="dropout", shipped=UNKNOWN)
def dropout_in_evaluation(s: Subject) -> Subject:
    """The held-out loss is measured with dropout on."""

    def measure(policy: Policy, groups: Sequence[Group]) -> float:
        signals = policy.signals(s.batches(groups, 10**9, True)[0], s.objective.needs)
        return float(s.objective(signals).total.detach()) / sum(one.learned for group in groups for one in group)

    return replace(s, measure=measure)


@bug("measuring", on="dropout", shipped=UNKNOWN)
def evaluation_mode_is_never_left(s: Subject) -> Subject:
    """After the first evaluation the run goes on without dropout."""

    def measure(policy: Policy, groups: Sequence[Group]) -> float:
        found = s.measure(policy, groups)
        policy.model.eval()
        return found

    return replace(s, measure=measure)


@bug("reference", on="dpo", shipped=UNKNOWN)
def reference_with_the_adapter_on(s: Subject) -> Subject:
    """The reference of DPO is asked with the adapter on, so all log-ratios are zero."""

    class Same(Policy):
        def _reference(self, batch: Batch, temperature: float = 1.0) -> Tensor:
            with torch.no_grad(), evaluating(self.model):
                return self.signals(batch, "logp").logp

    return with_policy(s, Same)


@bug("reference", on="dpo full", shipped=UNKNOWN)
def reference_noted_from_another_model(s: Subject) -> Subject:
    """Log-probabilities of the reference are read from a cache that belongs to another model."""
    others = [tuple(replace(one, facts={**one.facts, "ref_logp": [-5.0] * len(one.tokens)}) for one in group) for group in s.groups]
    return replace(s, groups=others)


@bug("start", shipped=UNKNOWN)
def adapter_that_does_not_start_silent(s: Subject) -> Subject:
    """Both factors of the adapter start at random."""

    def make() -> Policy:
        one, generator = s.policy(), torch.Generator().manual_seed(0)
        for name, parameter in one.trainable().items():
            if name.endswith(".b"):
                parameter.data.normal_(0, 0.02, generator=generator)
        return one

    return replace(s, policy=make)


Written = list[tuple[list[int], list[float]]]


def with_padding(s: Subject, *, masked: bool) -> Subject:
    """A writer that pads prompts on the left and counts positions from the first column."""

    @torch.no_grad()
    def write(policy: Policy, prompts: Sequence[Sequence[int]], length: int) -> Written:
        model, width = policy.model, max(map(len, prompts))
        found: Written = []
        for prompt in prompts:
            rest, (tokens, logps) = [0] * (width - len(prompt)) + list(prompt), ([], [])
            for _ in range(length):
                mask = torch.tensor([[int(not masked or i >= width - len(prompt)) for i in range(len(rest))]])
                states = _stock(policy, rest, mask)
                logp_V = policy.head().logits(states[-1:]).log_softmax(-1)[0]
                tokens.append(int(logp_V.argmax()))
                logps.append(float(logp_V.max()))
                rest.append(tokens[-1])
            found.append((tokens, logps))
        assert model is policy.model
        return found

    return replace(s, write=write)


def _stock(policy: Policy, tokens: list[int], mask: Tensor) -> Tensor:
    from hone.models.policy import using_attention

    base: Any = policy.model.base_model
    with using_attention(policy.model, policy.stock):
        out = base(input_ids=torch.tensor([tokens]), attention_mask=mask, position_ids=torch.arange(len(tokens))[None], use_cache=False)
    states: Tensor = out.last_hidden_state[0]
    return states


@bug("cache", on="absolute", shipped=UNKNOWN)
def padded_positions(s: Subject) -> Subject:
    """Prompts are padded on the left, and positions are counted from the first padding token."""
    return with_padding(s, masked=True)


@bug("cache", shipped=UNKNOWN)
def padding_that_is_seen(s: Subject) -> Subject:
    """Prompts are padded on the left, and the padding is not masked."""
    return with_padding(s, masked=False)


@bug("cache", shipped="trl#5312")
def weights_never_sent_to_the_writer(s: Subject) -> Subject:
    """Rollouts are written by the weights of the start, since the engine never gets the new ones."""
    first = s.policy()
    return replace(s, write=lambda policy, prompts, length: s.write(copy.deepcopy(first), prompts, length))


assert LENGTH > 1, "a cache is used from the second token on"
