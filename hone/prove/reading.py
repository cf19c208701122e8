"""What the model says at a place: whether it looks ahead or at its neighbours, and whether fast parts say what plain ones do.

Shape legend: T tokens, N reads, D hidden size, V vocabulary, H query heads, K key heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from hone.core.types import Batch
from hone.models.attention import ForestAttention, plan
from hone.models.kernels.norm import FusedRmsNorm
from hone.models.kernels.swiglu import FusedGatedMlp
from hone.models.logprob import token_logprobs
from hone.models.policy import Policy
from hone.prove.base import Found, Mute, proof, worst
from hone.prove.plain import EVERYTHING, learned, moved, picked
from hone.prove.subject import Subject
from hone.tuning.lowrank import LoraLinear, weight_of
from hone.tuning.shapes import bias_of

Run = Callable[[Tensor], Tensor]


@proof("V006", bound=1e-5, unit="nats")
def causality(s: Subject) -> Found | Mute:
    """Changing the last learned token of every sequence, or all of another one, changes nothing that is said before it or elsewhere."""
    (batch,) = [one for one in s.batches(s.groups, EVERYTHING, True) if not one.aside]
    policy = moved(s)
    ways = {"packed": policy, "padded": replace(policy, packed=False)} if policy.packed else {"padded": policy}
    found = {}
    for way, one in ways.items():
        before = _logp(one, batch)
        found[f"{way}: a later token"] = (_logp(one, _changed(batch, _lasts(s, batch))) - before).abs().max().item()
        own = batch.row_N == 0
        there = batch.segments[batch.leaf_S[0]]
        leaf_T = torch.arange(there.start, there.start + there.length)
        after = _logp(one, _changed(batch, leaf_T))
        if not own.all():
            found[f"{way}: another sequence"] = (after - before)[~own].abs().max().item()
    return worst(found)


@torch.no_grad()
def _logp(policy: Policy, batch: Batch) -> Tensor:
    return policy.signals(batch, "logp").logp


def _lasts(s: Subject, batch: Batch) -> Tensor:
    """Where the last learned token of each sequence lies, and all behind it. The rows tell, for the batch may be wrong."""
    known = {tuple(one.tokens): learned(one) for group in s.groups for one in group}
    places = []
    for leaf in batch.leaf_S:
        path = batch.path(leaf)
        at = known[tuple(batch.tokens_T[path].tolist())]
        places += [path[at[-1] :]] if at else []
    return torch.cat(places)


def _changed(batch: Batch, places: Tensor) -> Batch:
    """The same reads and targets over other tokens; those of the vocabulary's beginning take turns."""
    tokens_T = batch.tokens_T.clone()
    tokens_T[places] = (tokens_T[places] + 1) % int(batch.tokens_T.max())
    return replace(batch, tokens_T=tokens_T)


@proof("V007", bound=1e-4, unit="of value or gradient")
def head(s: Subject) -> Found:
    """Log-probabilities in chunks, their gradients formed on the way, are those of one softmax over whole logits."""
    policy = moved(s)
    one = policy.head()
    generator = torch.Generator().manual_seed(0)
    count, width = one.chunk() + 3, one.weight_VD.shape[1]
    targets = torch.randint(0, len(one.weight_VD), (count,), generator=generator)
    start_ND = torch.randn(count, width, generator=generator).to(one.weight_VD.dtype)
    ways: list[Run] = [lambda x: token_logprobs(x, one, targets), lambda x: picked(one.logits(x), targets.tolist())]
    sides = [_head_side(run, start_ND, one.weight_VD) for run in ways]
    names = ("log-probabilities", "hidden", "weight")
    return worst({name: _relative(*pair) for name, pair in zip(names, zip(*sides, strict=True), strict=False)})


def _head_side(run: Run, start_ND: Tensor, weight_VD: Tensor) -> list[Tensor]:
    """Values and gradients of one way to log-probabilities."""
    hidden_ND = start_ND.clone().requires_grad_(True)
    logp_N = run(hidden_ND)
    moving = [hidden_ND, *([weight_VD] if weight_VD.requires_grad else [])]
    return [logp_N.detach(), *torch.autograd.grad(logp_N.square().sum(), moving)]


@proof("V008", bound=1e-4, unit="of value or gradient")
def kernels(s: Subject) -> Found | Mute:
    """Every fast module in use, forward and backward, computes what its formula does."""
    policy = moved(s)
    found: dict[str, float] = {}
    for name, module in policy.model.named_modules():
        formula = _formula(module)
        if formula is not None:
            found[name] = _both_ways(module, formula, _width(module, policy.head().weight_VD.shape[1]))
    if policy.packed:
        (batch,) = [one for one in s.batches(s.groups, EVERYTHING, True) if not one.aside]
        found |= _attention(batch)
    return worst(found) if found else Mute("this model has no module that a faster one replaces")


def _formula(module: nn.Module) -> Run | None:
    """What a fast module computes, written out."""
    if isinstance(module, FusedRmsNorm):
        return lambda x: module.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)
    if isinstance(module, FusedGatedMlp):
        return lambda x: module.down_proj(torch.nn.functional.silu(module.gate_proj(x)) * module.up_proj(x))
    if isinstance(module, LoraLinear) and module.simple(torch.empty(0, dtype=module.a.dtype)) and type(module) is LoraLinear:
        return lambda x: _low_rank(module, x)
    return None


def _low_rank(module: LoraLinear, x: Tensor) -> Tensor:
    a, b = module.pair()
    return torch.nn.functional.linear(x, weight_of(module.base), bias_of(module.base)) + module.scale * (x @ a.t()) @ b.t()


def _width(module: nn.Module, hidden: int) -> int:
    """Inputs of a module; a gated layer has those of the whole block."""
    if isinstance(module, LoraLinear):
        return module.shape[1]
    return len(module.weight) if isinstance(module, FusedRmsNorm) else hidden


def _both_ways(module: nn.Module, formula: Run, width: int) -> float:
    """The largest relative difference of output and of the gradients of input and parameters."""
    moving = [p for p in module.parameters() if p.requires_grad]
    dtype = next(module.parameters()).dtype
    start = torch.randn(1, 7, width, generator=torch.Generator().manual_seed(0)).to(dtype)
    sides = []
    for run in (module, formula):
        x = start.clone().requires_grad_(True)
        y = run(x)
        sides.append([y.detach(), *torch.autograd.grad(y.square().sum(), [x, *moving])])
    return max(_relative(one, other) for one, other in zip(*sides, strict=True))


def _relative(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-12))


def _attention(batch: Batch) -> dict[str, float]:
    """Attention over the forest of a batch against a softmax over a mask of who may see whom."""
    generator, count = torch.Generator().manual_seed(0), len(batch.tokens_T)
    q, k, v = (torch.randn(heads, count, 8, generator=generator) for heads in (4, 2, 2))
    seen_TT = _seen(batch)
    forest = plan(batch.segments)
    ways: list[Callable[..., Tensor]] = [lambda q, k, v: ForestAttention.apply(q, k, v, forest, 0.4, None), partial(_masked, seen_TT)]
    sides = []
    for run in ways:
        given = [x.clone().requires_grad_(True) for x in (q, k, v)]
        out = run(*given)
        sides.append([out.detach(), *torch.autograd.grad(out.square().sum(), given)])
    names = ("values", "dq", "dk", "dv")
    return {f"attention: {name}": _relative(*pair) for name, pair in zip(names, zip(*sides, strict=True), strict=True)}


def _seen(batch: Batch) -> Tensor:
    """Who may see whom, (T, T): every sequence its own past."""
    count = len(batch.tokens_T)
    seen_TT = torch.zeros(count, count, dtype=torch.bool)
    for leaf in batch.leaf_S:
        path = batch.path(leaf)
        seen_TT[path[:, None], path[None]] |= torch.ones(len(path), len(path), dtype=torch.bool).tril()
    return seen_TT


def _masked(seen_TT: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
    return ((q @ k.mT) * 0.4).masked_fill(~seen_TT, float("-inf")).softmax(-1) @ v


@proof("V009", bound=1e-4, unit="nats")
def measuring(s: Subject) -> Found | Mute:
    """The held-out loss is that of the model without dropout, and the same when it is asked twice."""
    from hone.prove import plain

    policy = moved(s)
    expected = plain.loss(s, plain.twin(s, policy), s.groups).item()
    policy.model.train()
    first, second = s.measure(policy, s.groups), s.measure(policy, s.groups)
    found = {"first": abs(first - expected), "twice": abs(first - second)}
    found["the model is left in training mode"] = 0.0 if policy.model.training else 1.0
    assert any(learned(one) for group in s.groups for one in group)
    return worst({name: value / max(1.0, abs(expected)) for name, value in found.items()})
