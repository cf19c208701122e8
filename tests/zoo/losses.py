"""Bugs of the loss and of the step: wrong denominators, wrong signs, wrong ranks, wrong schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hone.core.types import Batch, Loss, Signals, StepStat
from hone.objectives import Objective
from hone.prove import Subject
from hone.prove.plain import rate
from hone.prove.subject import Judged
from hone.train.engine import Engine, Tally
from hone.tuning.base import Tuning
from tests.zoo.base import bug

ACCUMULATION = "trl#2175, transformers#34191"


def with_engine(subject: Subject, kind: type[Engine]) -> Subject:
    """The subject with an engine of another class."""
    optim: Any = subject.optim
    return replace(subject, engine=lambda policy, world: kind(policy, optim, world=world))


class Counting(Engine):
    """Knows, while a step is added up, its micro-batches and those that are this rank's."""

    pieces: Sequence[Batch] = ()

    def _mine(self, batches: Sequence[Batch], objective: Objective) -> list[tuple[Batch, Mapping[str, StepStat]]]:
        found = super()._mine(batches, objective)
        self.pieces = [batch for batch, _ in found]
        return found

    def _learn(self, batch: Batch, step: Mapping[str, StepStat], objective: Objective, tally: Tally) -> None:
        own = Tally(total=self.divisor(batch, objective, tally))
        super()._learn(batch, step, objective, own)
        for name, value in own.sums.items():
            tally.sums[name] += value / own.total * tally.total
        tally.tokens += own.tokens

    def divisor(self, batch: Batch, objective: Objective, tally: Tally) -> float:
        raise NotImplementedError


@bug("accumulation", shipped=f"{ACCUMULATION}, unsloth#2055, axolotl#1100")
def mean_of_means(s: Subject) -> Subject:
    """Each micro-batch takes the mean over its own tokens, and the step the mean of those, so short answers count more."""

    class MeanOfMeans(Counting):
        def divisor(self, batch: Batch, objective: Objective, tally: Tally) -> float:
            return batch.count(objective.unit) * len(self.pieces)

    return with_engine(s, MeanOfMeans)


@bug("accumulation", shipped="axolotl#2262")
def not_divided_by_the_micro_batches(s: Subject) -> Subject:
    """The means of all micro-batches are added up: the gradient grows with their number."""

    class Added(Counting):
        def divisor(self, batch: Batch, objective: Objective, tally: Tally) -> float:
            return batch.count(objective.unit)

    return with_engine(s, Added)


@bug("accumulation", shipped="unsloth-zoo#1023")
def divided_twice(s: Subject) -> Subject:
    """The sum is divided by the tokens of the step and by the number of micro-batches too."""

    class Twice(Counting):
        def divisor(self, batch: Batch, objective: Objective, tally: Tally) -> float:
            return tally.total * len(self.pieces)

    return with_engine(s, Twice)


@bug("ranks", shipped=f"{ACCUMULATION} (the same, over ranks)")
def mean_on_each_rank(s: Subject) -> Subject:
    """Every rank divides by its own tokens and the gradients are averaged, so ranks with few of them count more."""

    class OnEachRank(Counting):
        def divisor(self, batch: Batch, objective: Objective, tally: Tally) -> float:
            return sum(piece.count(objective.unit) for piece in self.pieces) * self.world.size

    return with_engine(s, OnEachRank)


@bug("ranks", on="adalora", shipped="known from practice; no thread at hand")
def penalty_on_each_rank(s: Subject) -> Subject:
    """The method's own term of the loss is added once for each rank."""

    class Repeated(Engine):
        def _penalise(self, tally: Tally) -> None:
            penalty = self.policy.tuning.penalty(self.policy.model)
            assert penalty is not None
            penalty.backward()

    return with_engine(s, Repeated)


@bug("accumulation", on="clipped", shipped="known from practice; no thread at hand")
def clipped_before_the_step_is_whole(s: Subject) -> Subject:
    """The gradient is clipped after each micro-batch instead of once, when all of it is there."""

    class Clipping(Engine):
        def _learn(self, batch: Batch, step: Mapping[str, StepStat], objective: Objective, tally: Tally) -> None:
            super()._learn(batch, step, objective, tally)
            torch.nn.utils.clip_grad_norm_(list(self.masters), self.optim.clip or 1.0)

    return with_engine(s, Clipping)


@bug("optimiser", on="schedule", shipped="known from practice; no thread at hand")
def schedule_per_micro_batch(s: Subject) -> Subject:
    """The schedule moves once for each micro-batch, so the warm-up is over too early and the rate is at zero too."""
    return replace(s, train=loop(s, lambda step, count: rate(min(s.total, step * count), s.total, s.optim)))


@bug("optimiser", on="schedule", shipped="unsloth#8464")
def no_warm_up(s: Subject) -> Subject:
    """The warm-up is accepted and does nothing."""
    return replace(s, train=loop(s, lambda step, count: s.optim.learning_rate or 0.0))


def loop(s: Subject, chosen: Callable[[int, int], float]) -> Callable[[Any, int, int], None]:
    """A hand-written training loop whose learning rate is a function of the step and its micro-batches."""

    def turn(engine: Any, done: int, until: int) -> None:
        engine.policy.model.train()
        for step in range(done + 1, until + 1):
            batches = s.plan(step)
            engine.begin(step, s.total)
            norm = engine.gradient_norm(engine.forward_backward(batches, s.objective))
            engine.step(chosen(step, len(batches)), norm)

    return turn


@bug("optimiser", on="small rate", shipped="known from practice; no thread at hand")
def small_steps_are_rounded_away(s: Subject) -> Subject:
    """Weights are kept in bfloat16 without fp32 masters, so that small steps vanish by rounding."""

    class Rounded(Engine):
        def step(self, learning_rate: float, norm: float) -> None:
            super().step(learning_rate, norm)
            for master in self.masters:
                master.data = master.data.bfloat16().float()

    return with_engine(s, Rounded)


@bug("optimiser", on="full", shipped="known from practice; no thread at hand")
def norms_decay_too(s: Subject) -> Subject:
    """Weight decay falls on norms and biases as well."""

    class Decaying(Engine):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            for group in self.optimizer.param_groups:
                group["weight_decay"] = self.optim.weight_decay

    return with_engine(s, Decaying)


@bug("movers", shipped="trl#4416, peft#2892 (adapters that stayed empty)")
def optimiser_without_the_adapter(s: Subject) -> Subject:
    """The optimiser was made of a list of parameters that some of the adapter's are not on."""

    class Early(Engine):
        def step(self, learning_rate: float, norm: float) -> None:
            for group in self.optimizer.param_groups:
                group["params"] = group["params"][2:]
            super().step(learning_rate, norm)

    return with_engine(s, Early)


@bug("movers", shipped="known from practice; no thread at hand")
def frozen_weights_decay(s: Subject) -> Subject:
    """Weight decay shrinks the frozen base, which has no gradient."""

    class Shrinking(Engine):
        def step(self, learning_rate: float, norm: float) -> None:
            super().step(learning_rate, norm)
            for parameter in self.policy.model.parameters():
                if not parameter.requires_grad:
                    parameter.mul_(0.999)

    return with_engine(s, Shrinking)


@bug("budget", on="adalora", shipped="TRL and the transformers Trainer with peft's AdaLoRA (measured: 36 ranks left of 12)")
def adalora_never_prunes(s: Subject) -> Subject:
    """The loop never tells the method that a step was taken, so no rank is ever pruned."""

    class Silent(Engine):
        def step(self, learning_rate: float, norm: float) -> None:
            tuning, self.policy.tuning = self.policy.tuning, Tuning()
            super().step(learning_rate, norm)
            self.policy.tuning = tuning

    return with_engine(s, Silent)


def with_loss(s: Subject, fn: Callable[..., Loss]) -> Subject:
    """The subject with another loss function under the same declaration."""
    return replace(s, objective=replace(s.objective, fn=fn))


@bug("accumulation", shipped="known from practice; no thread at hand")
def mean_inside_the_objective(s: Subject) -> Subject:
    """The loss function takes a mean over the tokens at hand, and the loop divides once more."""
    return with_loss(s, lambda signals, **values: Loss(-(signals.logp * signals.batch.weight_N).mean()))


@bug("accumulation", on="kto", shipped="known from practice (stated in arXiv 2402.01306: the batch must be large)")
def reference_point_of_a_micro_batch(s: Subject) -> Subject:
    """The reference point of KTO is that of the micro-batch, not of the step."""

    def local(signals: Signals, **values: Any) -> Loss:
        ratio_S = signals.sum(signals.logp - signals.ref_logp)
        point = ratio_S.detach().mean()
        return Loss((1 - torch.sigmoid(ratio_S - point)).sum())

    return with_loss(s, local)


@bug("weightless", on="smoothed", shipped="known from practice; no thread at hand")
def smoothing_on_ignored_tokens(s: Subject) -> Subject:
    """Label smoothing is taken over all tokens, those without a weight included."""

    def smoothed(signals: Signals, *, label_smoothing: float, **values: Any) -> Loss:
        nll = signals.sum(-signals.logp).sum()
        return Loss((1 - label_smoothing) * nll - label_smoothing * signals.mean_logp.sum())

    return with_loss(s, smoothed)


@bug("direction", on="dpo", shipped="known from practice; no thread at hand")
def chosen_and_rejected_exchanged(s: Subject) -> Subject:
    """The worse answer comes first in the data, and the loss prefers it."""
    whole = s.objective.fn

    def exchanged(signals: Signals, **values: Any) -> Loss:
        return whole(replace(signals, logp_N=-signals.logp, ref_logp_N=-signals.ref_logp), **values)

    return with_loss(s, exchanged)


@bug("direction", on="kto", shipped="known from practice; no thread at hand")
def labels_turned_round(s: Subject) -> Subject:
    """A label of true is taken for an unwanted answer."""
    whole = s.objective.fn

    def turned(signals: Signals, **values: Any) -> Loss:
        facts = {**signals.batch.facts, "label": 1 - signals.batch.facts["label"]}
        return whole(replace(signals, batch=replace(signals.batch, facts=facts)), **values)

    return with_loss(s, turned)


@bug("direction", on="grpo", shipped="known from practice; no thread at hand")
def surrogate_without_its_minus(s: Subject) -> Subject:
    """The surrogate is minimised where it should be maximised."""
    whole = s.objective.fn
    return with_loss(s, lambda signals, **values: Loss(-whole(signals, **values).total))


@bug("asides", on="kto", shipped="known from practice (what arXiv 2402.01306 warns of)")
def matched_pairs(s: Subject) -> Subject:
    """KTO's reference point is measured on the row's own answer instead of another row's."""
    return replace(s, objective=replace(s.objective, aside=lambda group, other: group))


@bug("groups-apart", on="grpo", shipped="known from practice; no thread at hand")
def advantages_across_groups(s: Subject) -> Subject:
    """Rewards are centred over the whole batch instead of over the answers to one prompt."""

    def across(judged: Sequence[Sequence[Judged]]) -> list[list[float]]:
        rewards = torch.tensor([one.reward for group in judged for one in group])
        return [[float((one.reward - rewards.mean()) / (rewards.std() + 1e-4)) for one in group] for group in judged]

    return replace(s, credit=across)


@bug("leash", on="grpo", shipped="known from practice; no thread at hand")
def kl_with_the_wrong_sign(s: Subject) -> Subject:
    """The penalty for leaving the reference is added to the reward instead of taken off."""
    credit = s.credit
    assert credit is not None

    def turned(judged: Sequence[Sequence[Judged]]) -> list[list[float]]:
        return credit([[one._replace(log_ratios=tuple(-ratio for ratio in one.log_ratios)) for one in group] for group in judged])

    return replace(s, credit=turned)
