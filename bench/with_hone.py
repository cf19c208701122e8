"""hone as a contender: its own loop over the given groups, in the given order."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.workload import Outcome, Plan
from hone.core.types import Batch, Group
from hone.data.offline import Offline
from hone.models.kept import kept
from hone.models.kernels.fuse import fuse
from hone.models.policy import Policy
from hone.objectives import OBJECTIVES
from hone.train.engine import Engine
from hone.train.loop import BaseHook, State, train
from hone.train.settings import OptimSettings
from hone.tuning import trainable
from hone.tuning.lora import Lora


class Recorder(BaseHook):
    """Writes down each step's loss, gradient norm and end."""

    def __init__(self) -> None:
        self.outcome = Outcome()

    def started(self, state: State) -> None:
        self.outcome.ends.append(time.perf_counter())

    def stepped(self, state: State) -> None:
        self.outcome.losses.append(state.metrics["loss"])
        self.outcome.norms.append(state.metrics["grad_norm"])
        self.outcome.ends.append(time.perf_counter())


def run(model: PreTrainedModel, adapter: dict[str, Tensor], data: Sequence[Group], plan: Plan) -> Outcome:
    """Train the plan's steps from the given adapter."""
    fuse(model)
    tuning = Lora(rank=plan.rank, alpha=2.0 * plan.rank)
    tuning.attach(model, seed=0)
    moving = trainable(model)
    assert moving.keys() == adapter.keys()
    with torch.no_grad():
        for name, parameter in moving.items():
            parameter.copy_(adapter[name])
    policy = Policy.of(model, tuning)
    engine = Engine(policy, OptimSettings(learning_rate=plan.learning_rate, warmup_ratio=0.0))
    if plan.cached:
        with tempfile.TemporaryDirectory() as folder:
            data = kept(data, partial(_reference, policy), key={}, budget=plan.budget, folder=Path(folder))
    source = Offline(data, step_groups=plan.groups, budget=plan.budget, max_steps=plan.steps, shuffle=False)
    recorder = Recorder()
    train(engine, source, OBJECTIVES["dapo" if plan.method == "grpo" else plan.method], (recorder,))
    recorder.outcome.final = {name: parameter.detach().float().clone() for name, parameter in moving.items()}
    return recorder.outcome


def _reference(policy: Policy, batch: Batch) -> Mapping[str, Tensor]:
    return {"ref_logp": policy.signals(batch, "ref_logp").ref_logp}
