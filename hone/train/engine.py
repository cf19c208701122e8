"""Four verbs that every method is written with: forward_backward, step, sample, save / load."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.types import Batch, StepStat
from hone.core.world import World
from hone.models.policy import Policy
from hone.objectives.base import Objective
from hone.train.optim import Masters, adamw, embedding_factors, moments, recall
from hone.train.settings import OptimSettings
from hone.train.shortage import is_shortage, smaller, within
from hone.train.stats import step_statistics


@dataclass(slots=True)
class Tally:
    """Sums over the micro-batches of one optimiser step, of this rank until `Engine.step` adds the others."""

    total: float
    """The denominator: learned tokens, sequences or groups of the whole step."""
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    seconds: float = 0.0

    def means(self) -> dict[str, float]:
        return {name: value / self.total for name, value in self.sums.items()} if self.total else {"loss": 0.0}


class Stopped(Exception):
    """Training was asked to stop in the middle of a step; the step is abandoned and nothing has moved."""


class Engine:
    """A policy that learns. Losses come as sums; this is the one place that divides, by a count made beforehand."""

    def __init__(
        self, policy: Policy, optim: OptimSettings, *, world: World | None = None, sampler: Callable[..., Any] | None = None
    ) -> None:
        self.policy, self.optim, self.world = policy, optim, world or World()
        moving = policy.trainable()
        self.names = list(moving)
        self.masters = Masters(moving.values())
        extra = embedding_factors(policy.model, moving, optim)
        factors = [policy.tuning.rate(name) * factor for name, factor in zip(self.names, extra, strict=True)]
        self.optimizer = adamw(self.masters, optim, factors)
        self._sampler = sampler
        self.at = (1, 1)
        self.taken = 0
        """Steps of the run that are behind the weights at hand."""
        self.limit: int | None = None
        """Tokens of the largest micro-batch that memory has allowed; None until it has refused one."""

    def begin(self, step: int, total: int) -> None:
        """Say which optimiser step comes next, counted from 1, and how many there are: some methods follow a schedule."""
        self.at = (step, total)
        self.policy.tuning.begin(self.policy.model, step=step, total=total)

    def forward_backward(self, batches: Iterable[Batch], objective: Objective, *, should_stop: Callable[[], bool] = lambda: False) -> Tally:
        """Add the gradient of one optimiser step, given as all its micro-batches on every rank.

        Ranks share the micro-batches among them. What the objective wants to know of the whole step is worked out first.
        Raises Stopped between micro-batches when asked to; with several ranks nobody leaves in the middle of a step, for the
        others would wait. A micro-batch for which there is too little memory is split by its tokens, and the step begun anew: the
        gradient is the same. Raises M091 where it cannot be split any more.
        """
        batches, started = list(batches), time.perf_counter()
        tally = Tally(total=sum(batch.count(objective.unit) for batch in batches))
        alone = objective.unit != "group"
        while (stuck := self._add(batches, objective, tally, should_stop)) is not None:
            self.forget()
            self.limit = smaller(stuck, inside_groups=alone)
            tally = Tally(total=tally.total)
        self._penalise(tally)
        tally.seconds = time.perf_counter() - started
        return tally

    def _add(self, batches: Sequence[Batch], objective: Objective, tally: Tally, should_stop: Callable[[], bool]) -> Batch | None:
        """Add the gradients of all micro-batches, or return the one for which there was too little memory.

        Then part of its gradient may already be there, so the step is begun anew; that is impossible, and the error goes on,
        where gradients were there before or other ranks would wait.
        """
        clean = all(master.grad is None for master in self.masters)
        batch: Batch | None = None
        try:
            for batch, step in self._mine(batches, objective):
                if self.world.size == 1 and should_stop():
                    raise Stopped
                if len(batch.read_N):
                    self._learn(batch, step, objective, tally)
        except (RuntimeError, MemoryError) as error:
            if batch is None or not clean or not is_shortage(error):
                raise
            return batch
        return None

    def _mine(self, batches: Sequence[Batch], objective: Objective) -> list[tuple[Batch, Mapping[str, StepStat]]]:
        """This rank's micro-batches, none above the limit that memory has shown, each with what it is told of the step."""
        rank, size, alone = self.world.rank, self.world.size, objective.unit != "group"
        if size == 1:
            batches = within(batches, self.limit, inside_groups=alone)
        stats = step_statistics(self.policy, batches, objective, self.world)
        learned = [(batch, step) for batch, step in zip(batches, stats, strict=True) if not batch.aside][rank::size]
        if size > 1 and not objective.stats:
            return [(piece, {}) for batch, _ in learned for piece in within([batch], self.limit, inside_groups=alone)]
        return learned

    def _learn(self, batch: Batch, step: Mapping[str, StepStat], objective: Objective, tally: Tally) -> None:
        """Forward and backward of one micro-batch."""
        signals = self.policy.signals(batch.to(self.policy.device), objective.needs)
        signals.step = step
        loss = objective(signals)
        (loss.total / tally.total).backward()
        tally.sums["loss"] += loss.total.item()
        for name, value in loss.metrics.items():
            tally.sums[name] += value.item()
        tally.tokens += len(batch.tokens_T)

    def _penalise(self, tally: Tally) -> None:
        """The method's own term of the loss: once a step and on one rank, for the gradients of all ranks are added."""
        penalty = self.policy.tuning.penalty(self.policy.model) if self.world.main else None
        if penalty is not None:
            penalty.backward()
            tally.sums["penalty"] += penalty.item() * tally.total

    def gradient_norm(self, tally: Tally) -> float:
        """Norm of the whole gradient, after adding the gradients and the sums of all ranks."""
        gradients = self.masters.gradients()
        self.world.sum_(gradients)
        if self.world.size > 1:
            # a rank without a micro-batch has no metrics, and only one adds the method's own term
            names = sorted({name for said in self.world.texts(json.dumps(list(tally.sums))) for name in json.loads(said)})
            values = torch.tensor([tally.sums[name] for name in names] + [tally.tokens], dtype=torch.float64)
            self.world.sum_([values])
            tally.sums = dict(zip(names, values[:-1].tolist(), strict=True))
            tally.tokens = int(values[-1])
        return float(torch.nn.utils.get_total_norm(gradients))

    def step(self, learning_rate: float, norm: float) -> None:
        """Clip by the norm, move the weights once, forget the gradient."""
        if self.optim.clip is not None and norm > self.optim.clip:
            torch._foreach_mul_(self.masters.gradients(), self.optim.clip / (norm + 1e-6))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimizer.step()
        self.masters.publish()
        step, total = self.at
        self.policy.tuning.stepped(self.policy.model, step=step, total=total)
        self.forget()

    def forget(self) -> None:
        """Drop the gradient without moving."""
        self.optimizer.zero_grad(set_to_none=True)
        for parameter, _ in self.masters.pairs:
            parameter.grad = None  # of a smaller type, and left behind by a backward that broke off

    def sample(self, prompts: list[list[int]], **options: Any) -> Any:
        """Let the policy write; `options` are those of `hone.rollout.sample.Sampler.generate`."""
        assert self._sampler is not None, "this engine was made without a sampler"
        return self._sampler(prompts, **options)

    def save(self) -> dict[str, Tensor]:
        """All that a resumed run needs besides the base: masters, AdamW's moments and the method's own state, by name."""
        tensors: dict[str, Tensor] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            tensors[f"param/{name}"] = master.detach()
            for key, value in moments(self.optimizer, master).items():
                tensors[f"{key}/{name}"] = value
        return tensors | {f"tuning/{name}": tensor for name, tensor in self.policy.tuning.state(self.policy.model).items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `save`."""
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for place, tensor in tensors.items():
            key, _, name = place.partition("/")
            parts[name][key] = tensor
        kept: dict[nn.Parameter, dict[str, Tensor]] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(parts[name].pop("param"))
            kept[master] = parts[name]
        recall(self.optimizer, kept)
        self.masters.publish()
        for name, tensor in self.policy.tuning.state(self.policy.model).items():
            tensor.copy_(tensors[f"tuning/{name}"])
