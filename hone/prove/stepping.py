"""One gradient, however it is computed: in one piece, in many, packed, padded, alone, on two ranks; and what the optimiser makes of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import nn
from torch._C._distributed_c10d import HashStore, ProcessGroupGloo

from hone.core.types import Batch
from hone.core.world import World
from hone.prove import plain
from hone.prove.base import Found, Mute, proof, worst
from hone.prove.plain import EVERYTHING, Gradient, apart, gradient, moved, of_engine
from hone.prove.subject import Engine, Subject
from hone.tuning.base import Tuning

SMALL = 1
"""A budget of tokens that gives every group a micro-batch of its own."""
WAIT = timedelta(seconds=30)
STEPS = 3
"""Optimiser steps that are followed number by number."""


@proof("V001", bound=1e-4, unit="of the gradient")
def accumulation(s: Subject) -> Found | Mute:
    """A step in one micro-batch has the gradient and the loss of the same step in as many as there are groups."""
    many, one = s.batches(s.groups, SMALL, True), s.batches(s.groups, EVERYTHING, True)
    if len(many) <= len(one):
        return Mute("there is only one group")
    return apart(of_engine(s, many), of_engine(s, one))


@proof("V002", bound=5e-4, unit="of the gradient")
def layouts(s: Subject) -> Found:
    """Packed, padded, and with common beginnings computed once, a step has the same gradient and loss."""
    shared = of_engine(s, s.batches(s.groups, EVERYTHING, True))
    ways = {"packed without sharing": of_engine(s, s.batches(s.groups, EVERYTHING, False))}
    padded = moved(s)
    if padded.packed:
        padded.packed = False
        ways["padded"] = gradient(s, s.engine(padded, World()), s.batches(s.groups, EVERYTHING, True))
    return worst({way: apart(found, shared).number for way, found in ways.items()})


@proof("V003", bound=5e-4, unit="of the gradient")
def plain_sum(s: Subject) -> Found:
    """Each sequence alone, through transformers' own modules and whole logits, the loss and its gradient are those of the run."""
    policy = moved(s)
    expected = plain.loss_and_gradient(s, plain.twin(s, policy), s.groups)
    torch.manual_seed(0)
    return apart(gradient(s, s.engine(policy, World()), s.batches(s.groups, EVERYTHING, True)), expected)


@proof("V004", bound=1e-5, unit="of the gradient")
def ranks(s: Subject) -> Found:
    """Two ranks that talk over gloo have together the gradient and the loss of one."""
    batches = s.batches(s.groups, SMALL, True)
    alone = of_engine(s, batches)
    found = _together(s, batches)
    return worst({f"rank {rank}": apart(one, alone).number for rank, one in enumerate(found)})


def _together(s: Subject, batches: Sequence[Batch]) -> list[tuple[Gradient, float]]:
    """Two ranks as threads of this process, each with its own weights and its own end of a gloo ring."""
    store, policies = HashStore(), [moved(s) for _ in range(2)]
    found: dict[int, tuple[Gradient, float]] = {}
    broken: list[Exception] = []
    rings: dict[int, Any] = {}  # a ring that is dropped while its neighbour still reads breaks off

    def rank(number: int) -> None:
        try:
            rings[number] = ProcessGroupGloo(store, number, 2, WAIT)
            engine = s.engine(policies[number], World(number, 2, rings[number]))
            found[number] = gradient(s, engine, batches)
        except Exception as error:
            broken.append(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
    return [found[number] for number in range(2)]


@proof("V005", bound=1e-3, unit="of the change")
def optimiser(s: Subject) -> Found | Mute:
    """Learning rate, clipping, decay and moments of every step are those of AdamW as its paper writes it."""
    if type(s.tuning).stepped is not Tuning.stepped:
        return Mute("the method moves weights by a rule of its own after each step")
    engine, shadow = s.engine(_still(s), World()), s.engine(_still(s), World())
    shadow.policy.model.train()
    start = _weights(engine)
    expected = plain.PlainAdamW(start, s.optim, _factors(s, shadow))
    if _draws(s, shadow):
        return Mute("the method draws at random at every step")
    for step in range(1, min(STEPS, s.total) + 1):
        shadow.load(engine.save())
        shadow.begin(step, s.total)
        shadow.gradient_norm(shadow.forward_backward(s.plan(step), s.objective))
        found = {name: one.clone() for name, one in zip(shadow.names, shadow.masters.gradients(), strict=True)}
        shadow.forget()
        expected.step(found, plain.rate(step, s.total, s.optim))
        s.train(engine, step - 1, step)
    return _difference(_weights(engine), expected.weights, start)


def _still(s: Subject) -> Any:
    """A policy at its start that draws nothing at random."""
    policy = s.policy()
    for module in policy.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return policy


def _draws(s: Subject, engine: Engine) -> bool:
    """Whether the gradient of a step depends on torch's generator although there is no dropout."""
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        engine.begin(1, s.total)
        engine.gradient_norm(engine.forward_backward(s.plan(1), s.objective))
        found.append([one.clone() for one in engine.masters.gradients()])
        engine.forget()
    return any(not torch.equal(one, other) for one, other in zip(*found, strict=True))


def _weights(engine: Engine) -> Gradient:
    return {name: master.detach().clone() for name, master in zip(engine.names, engine.masters, strict=True)}


def _factors(s: Subject, engine: Engine) -> dict[str, float]:
    """What each parameter's learning rate is multiplied with: the method's wish, and that for embeddings and head."""
    model: Any = engine.policy.model
    words = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    ours = {id(parameter) for layer in words for parameter in layer.parameters()}
    extra = 1.0
    if s.optim.embedding_learning_rate is not None and s.optim.learning_rate:
        extra = s.optim.embedding_learning_rate / s.optim.learning_rate
    return {name: s.tuning.rate(name) * (extra if id(p) in ours else 1.0) for name, p in engine.policy.trainable().items()}


def _difference(found: Gradient, expected: Gradient, start: Gradient) -> Found:
    """How far weights are from where they should be, relative to how far those have come, over all of them."""
    apart = {name: (found[name].double() - expected[name]).square().sum().item() for name in expected}
    way = sum((expected[name] - start[name].double()).square().sum().item() for name in expected)
    assert way > 0, "nothing has moved"
    return Found((sum(apart.values()) / way) ** 0.5, max(apart, key=lambda name: apart[name]))
