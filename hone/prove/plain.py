"""The plainest way to the same numbers: each sequence alone, whole logits, autograd, one formula a line. Slow, and easy to check by eye.

Shape legend: N reads, L tokens of a sequence, D hidden size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.types import Batch, Group, Needs, Signals, StepStat
from hone.core.types import Sequence as Tokens
from hone.core.world import World
from hone.data.batching import pack
from hone.models.policy import Policy
from hone.models.teacher import teacher_reading
from hone.objectives import Objective
from hone.prove.base import Found
from hone.prove.subject import Engine, Optim, Subject
from hone.tuning import Tuning
from hone.tuning.base import trainable
from hone.tuning.lora import Lora

Gradient = dict[str, Tensor]
SHIFT = 0.05
"""How far parameters are moved from where they start."""
EVERYTHING = 10**9
"""A budget of tokens that cuts nothing."""


def moved(subject: Subject, seed: int = 2) -> Policy:
    """A policy away from its start, where adapters say nothing; without dropout."""
    policy, generator = subject.policy(), torch.Generator().manual_seed(seed)
    policy.model.eval()
    for parameter in policy.trainable().values():
        parameter.data += SHIFT * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return policy


def twin(subject: Subject, policy: Policy) -> Policy:
    """The same weights in the modules and the attention of transformers, one row at a time."""
    model = subject.base()
    subject.tuning.attach(model, seed=subject.seed)
    theirs, mine = trainable(policy.model), trainable(model)
    assert mine.keys() == theirs.keys(), f"other parameters move: {sorted(mine.keys() ^ theirs.keys())[:3]}"
    state = subject.tuning.state(policy.model)
    for name, parameter in mine.items():
        parameter.data.copy_(theirs[name].data)
    for name, tensor in subject.tuning.state(model).items():
        tensor.copy_(state[name])
    model.eval()
    return Policy(model, subject.tuning, False, stock(model), policy.heads, policy.teacher)


def rounds_the_base(tuning: Tuning) -> bool:
    """Whether a method begins by rounding the base, so that the run's base is not the one that was given."""
    return isinstance(tuning, Lora) and tuning.init == "loftq"


def stock(model: nn.Module) -> str:
    """The attention that a model of transformers comes with."""
    config: Any = model.config
    return str(config._attn_implementation)


def alone(policy: Policy, sequence: Tokens) -> Tensor:
    """Hidden states (L, D) of a sequence that has a row to itself."""
    return replace(policy, packed=False).hidden(pack([(sequence,)], share=False))


def base_logp(base: nn.Module, sequence: Tokens) -> Tensor:
    """What the base, as transformers runs it, says of the learned tokens of a sequence; (n,)."""
    with torch.no_grad():
        logits_LV = base(input_ids=torch.tensor([sequence.tokens]), use_cache=False).logits[0]
    at = learned(sequence)
    return picked(logits_LV[[j - 1 for j in at]], [sequence.tokens[j] for j in at])


def learned(sequence: Tokens) -> list[int]:
    """Where the tokens with a weight are. The first token has nothing before it."""
    return [j for j, weight in enumerate(sequence.weights) if j and weight]


def picked(logits_NV: Tensor, targets: Sequence[int]) -> Tensor:
    """Log-probabilities (N,) of the targets: the definition."""
    logp_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)).log_softmax(-1)
    return logp_NV[torch.arange(len(targets)), torch.tensor(targets, dtype=torch.long)]


def said(policy: Policy, base: nn.Module, groups: Sequence[Group], needs: Needs) -> Signals:
    """All signals of some groups, read sequence by sequence."""
    batch = pack(list(groups), share=False)
    sequences = [one for group in groups for one in group]
    hidden = [alone(policy, one) for one in sequences]
    targets = [one.tokens[j] for one in sequences for j in learned(one)]
    hidden_ND = torch.cat([states[[j - 1 for j in learned(one)]] for one, states in zip(sequences, hidden, strict=True)])
    out = Signals(batch)
    if "logp" in needs:
        out.logp_N = picked(policy.head(**needs["logp"]).logits(hidden_ND), targets)
    if "ref_logp" in needs:
        out.ref_logp_N = batch.facts["ref_logp"] if "ref_logp" in batch.facts else torch.cat([base_logp(base, one) for one in sequences])
    _distributions(out, policy, hidden_ND, needs)
    if "value" in needs:
        out.value_N = policy.heads["value"](hidden_ND)
    if "score" in needs:
        out.score_S = policy.heads["score"](torch.stack([states[-1] for states in hidden]))
    if "step_score" in needs:
        out.step_score_N = policy.heads["score"](hidden_ND)
    return out


def _distributions(out: Signals, policy: Policy, hidden_ND: Tensor, needs: Needs) -> None:
    """Entropy, mean log-probability and divergence by their definitions."""
    if "entropy" in needs:
        logp_NV = policy.head(**needs["entropy"]).logits(hidden_ND).log_softmax(-1)
        out.entropy_N = -(logp_NV.exp() * logp_NV).sum(-1)
    if "mean_logp" in needs:
        out.mean_logp_N = policy.head().logits(hidden_ND).log_softmax(-1).mean(-1)
    if "divergence" in needs:
        how = needs["divergence"]
        reading = teacher_reading(policy.teacher, out.batch, how)
        out.divergence_N = reading(policy.head(how.get("temperature", 1.0)).logits(hidden_ND), slice(0, len(hidden_ND)))


def units(objective: Objective, groups: Sequence[Group]) -> float:
    """What the sum of a loss is divided by, counted from the groups themselves."""
    sequences = [one for group in groups for one in group]
    tokens = sum(sum(one.weights[1:]) for one in sequences)
    return {"token": tokens, "sequence": float(len(sequences)), "group": float(len(groups))}[objective.unit]


def statistics(subject: Subject, policy: Policy, base: nn.Module, groups: Sequence[Group]) -> dict[str, StepStat]:
    """What an objective wants to know of a whole step, from all groups at once."""
    objective = subject.objective
    if not objective.stats:
        return {}
    asked = asides(objective, groups) or list(groups)
    with torch.no_grad():
        found = objective.statistics(said(policy, base, asked, objective.needs))
    here = (lambda count: slice(0, 0)) if objective.aside else (lambda count: slice(0, count))
    return {name: StepStat(values.double(), here(len(values))) for name, values in found.items()}


def asides(objective: Objective, groups: Sequence[Group]) -> list[Group]:
    """For each group, the one that is only asked."""
    make = objective.aside
    return [] if make is None else [make(one, groups[(i + 1) % len(groups)]) for i, one in enumerate(groups)]


def loss(subject: Subject, policy: Policy, groups: Sequence[Group]) -> Tensor:
    """The mean loss of some groups, differentiable."""
    base = subject.base()
    signals = said(policy, base, groups, subject.objective.needs)
    signals.step = statistics(subject, policy, base, groups)
    return subject.objective(signals).total / units(subject.objective, groups)


def loss_and_gradient(subject: Subject, policy: Policy, groups: Sequence[Group]) -> tuple[Gradient, float]:
    """The mean loss of a step and its whole gradient, by name."""
    moving = policy.trainable()
    value = loss(subject, policy, groups)
    whole = value
    penalty = subject.tuning.penalty(policy.model)
    if penalty is not None:
        whole = whole + penalty
    found = torch.autograd.grad(whole, list(moving.values()), allow_unused=True)
    pairs = zip(moving.items(), found, strict=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in pairs}, value.item()  # type: ignore[redundant-expr]


def gradient(subject: Subject, engine: Engine, batches: Sequence[Batch]) -> tuple[Gradient, float]:
    """The same as the engine computes it. torch's generator is seeded, as some methods draw at each step."""
    torch.manual_seed(0)
    engine.begin(1, subject.total)
    tally = engine.forward_backward(batches, subject.objective)
    engine.gradient_norm(tally)
    found = {name: one.clone() for name, one in zip(engine.names, engine.masters.gradients(), strict=True)}
    engine.forget()
    return found, tally.means()["loss"]


def of_engine(subject: Subject, batches: Sequence[Batch]) -> tuple[Gradient, float]:
    """The engine's gradient on a policy that has moved."""
    return gradient(subject, subject.engine(moved(subject), World()), batches)


def apart(one: tuple[Gradient, float], other: tuple[Gradient, float]) -> Found:
    """How far two gradients, or the losses they belong to, lie apart, relative to their size."""
    (mine, loss), (theirs, other_loss) = one, other
    assert mine.keys() == theirs.keys(), f"other parameters: {sorted(mine.keys() ^ theirs.keys())[:3]}"
    squares = {name: (mine[name].double() - theirs[name].double()).square().sum().item() for name in mine}
    size = sum(g.double().square().sum().item() for g in theirs.values())
    assert size > 0, "there is no gradient at all"
    far = math.sqrt(sum(squares.values()) / size)
    losses = abs(loss - other_loss) / max(abs(other_loss), 1e-3)
    if losses > far:
        return Found(losses, f"the loss is {loss:.6g} and {other_loss:.6g}")
    return Found(far, max(squares, key=lambda name: squares[name]))


def rate(step: int, total: int, optim: Optim) -> float:
    """Learning rate of a step, counted from 1: a straight rise, then a line or a half-wave down to zero after the last step."""
    peak, rising = optim.learning_rate or 0.0, math.ceil(optim.warmup_ratio * total)
    if step <= rising:
        return peak * step / rising
    done = (step - 1 - rising) / max(1, total - rising)
    return peak * {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[optim.schedule]


class PlainAdamW:
    """AdamW as its paper writes it (arXiv 1711.05101, algorithm 2), in fp64, one parameter at a time."""

    def __init__(self, start: Mapping[str, Tensor], optim: Optim, factors: Mapping[str, float]) -> None:
        self.weights = {name: weight.double().clone() for name, weight in start.items()}
        self.optim, self.factors, self.taken = optim, factors, 0
        self.mean = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.square = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}

    def step(self, gradients: Gradient, learning_rate: float) -> None:
        """Clip the whole gradient by its norm, then move every weight once."""
        self.taken += 1
        o, t = self.optim, self.taken
        norm = math.sqrt(sum(g.double().square().sum().item() for g in gradients.values()))
        shrunk = min(1.0, o.clip / (norm + 1e-6)) if o.clip is not None else 1.0
        for name, weight in self.weights.items():
            g, lr = gradients[name].double() * shrunk, learning_rate * self.factors[name]
            self.mean[name] = o.beta1 * self.mean[name] + (1 - o.beta1) * g
            self.square[name] = o.beta2 * self.square[name] + (1 - o.beta2) * g * g
            mean, square = self.mean[name] / (1 - o.beta1**t), self.square[name] / (1 - o.beta2**t)
            decay = o.weight_decay if weight.dim() >= 2 else 0.0
            self.weights[name] = weight - lr * decay * weight - lr * mean / (square.sqrt() + 1e-8)
