"""Which weights move: the start is the base, the reference stays the base, all that should move does, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.core.world import World
from hone.data.batching import pack
from hone.models.policy import Policy
from hone.prove import plain
from hone.prove.base import Found, Mute, proof, worst
from hone.prove.subject import Engine, Subject
from hone.tuning.adalora import AdaLora, svd_layers

ROUNDED = "the method begins by rounding the base to 4 bits"
READS_WORDS = {"logp", "entropy", "mean_logp", "divergence"}
"""Signals that are read from the vocabulary, and so move its head."""


@proof("V010", bound=1e-4, unit="nats")
def start(s: Subject) -> Found | Mute:
    """Before the first step the tuned model says what transformers' base says."""
    if not s.tuning.about.starts_as_base:
        return Mute("this method does not start as the base")
    if plain.rounds_the_base(s.tuning):
        return Mute(ROUNDED)
    policy = s.policy()
    policy.model.eval()
    return _against_base(s, policy, "logp")


@proof("V011", bound=1e-4, unit="nats")
def reference(s: Subject) -> Found | Mute:
    """After training the reference still is the base, and stepping aside leaves the tuned model as it was."""
    if plain.rounds_the_base(s.tuning):
        return Mute(ROUNDED)
    policy = plain.moved(s)
    try:
        with policy.tuning.disabled(policy.model):
            pass
    except HoneError:
        return _kept_reference(s)
    policy.model.train()
    before = _said(s, policy, "logp")
    found = _against_base(s, policy, "ref_logp")
    after = _said(s, policy, "logp")
    moved = (before - after).abs().max().item() if not _drops(policy) else 0.0
    return worst({found.where: found.number, "the tuned model, afterwards": moved})


def _kept_reference(s: Subject) -> Found | Mute:
    """Where the base itself moves, the reference is what was noted before."""
    if "ref_logp" not in s.objective.needs:
        return Mute("the base itself moves, and no reference is asked")
    base, found = s.base(), {}
    for group in s.groups:
        for one in group:
            kept = torch.tensor(one.facts["ref_logp"])[plain.learned(one)]
            found[str(one.origin)] = (kept - plain.base_logp(base, one)).abs().max().item()
    return worst(found)


def _drops(policy: Policy) -> bool:
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in policy.model.modules())


@torch.no_grad()
def _said(s: Subject, policy: Policy, signal: str) -> Tensor:
    """A signal at all reads, in the order of the sequences."""
    found: Tensor = getattr(policy.signals(replace(pack(list(s.groups)), facts={}), signal), signal)
    return found


def _against_base(s: Subject, policy: Policy, signal: str) -> Found:
    """The largest difference from what the base says of the same tokens."""
    base = s.base()
    said = _said(s, policy, signal)
    sequences = [one for group in s.groups for one in group if one.learned]
    expected = torch.cat([plain.base_logp(base, one) for one in sequences])
    origins = [str(one.origin) for one in sequences for _ in plain.learned(one)]
    far = (said - expected).abs()
    return Found(far.max().item(), origins[int(far.argmax())])


@proof("V012", bound=0, unit="parameters")
def movers(s: Subject) -> Found:
    """Training moves every parameter that it should, and no other."""
    policy = s.policy()
    engine = s.engine(policy, World())
    before = _everything(policy)
    moving = dict(policy.trainable())
    s.train(engine, 0, s.total)
    after = _everything(policy)
    idle = _idle(s, policy)
    still = [name for name in moving if name not in idle and torch.equal(before[name], after[name])]
    swept = [name for name in before if name not in moving and not torch.equal(before[name], after[name])]
    swept = [name for name in swept if name not in _state(s, policy)]
    named = [f"{name} did not move" for name in still] + [f"{name} moved" for name in swept]
    return Found(len(named), named[0] if named else "")


def _everything(policy: Policy) -> dict[str, Tensor]:
    """All numbers of the model and its heads, copied."""
    heads = {f"heads.{name}": p for name, p in policy.heads.named_parameters()}
    found = {**dict(policy.model.named_parameters()), **dict(policy.model.named_buffers()), **heads}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _idle(s: Subject, policy: Policy) -> set[str]:
    """Parameters from which no gradient is due: the bias of scores that are only compared, a head of words where no words are read."""
    if READS_WORDS & s.objective.needs.keys():
        return set()
    cancels = {"heads.score.bias"} if s.objective.data == "pair" else set()
    model: Any = policy.model
    table = model.get_input_embeddings()
    shared = {id(p) for p in table.parameters()}
    ours = {id(p) for p in model.get_output_embeddings().parameters()} - shared
    return cancels | {name for name, p in model.named_parameters() if id(p) in ours}


def _state(s: Subject, policy: Policy) -> set[str]:
    """Buffers that the method keeps count with."""
    ours = {id(tensor) for tensor in s.tuning.state(policy.model).values()}
    return {name for name, tensor in policy.model.named_buffers() if id(tensor) in ours}


@proof("V013", bound=0, unit="ranks too many")
def budget(s: Subject) -> Found | Mute:
    """A method that prunes ends with as many ranks as were asked for."""
    if not isinstance(s.tuning, AdaLora):
        return Mute("this method prunes nothing")
    engine: Engine = s.engine(s.policy(), World())
    s.train(engine, 0, s.total)
    layers = svd_layers(engine.policy.model)
    left = sum(int((layer.e != 0).sum()) for layer in layers.values())
    return Found(max(0, left - s.tuning.target_rank * len(layers)), f"{left} of {sum(len(one.e) for one in layers.values())} are left")
