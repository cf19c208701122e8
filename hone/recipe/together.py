"""Arms of a sweep that differ in their LoRA, their rate, their seed or their order only, trained in one pass over one frozen base."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from hone.models.heads import text_config
from hone.models.policy import Policy
from hone.models.recompute import recompute_blocks
from hone.recipe.forecast import Forecast
from hone.recipe.run import Run, Wishes, ended, hooks_of, rehearse, taken_up, train_run
from hone.recipe.settings import Recipe, resolve
from hone.recipe.stores import Stores, leaves_base_alone
from hone.report.progress import Progress
from hone.train.jointly import Arm, Joint, train_jointly
from hone.train.loop import State
from hone.train.stopping import stopping
from hone.tuning.bundle import bundle
from hone.tuning.lora import lora_layers
from hone.tuning.lowrank import LoraLinear

FREE = ("optim", "eval", "output", "seed")
"""Sections in which arms may differ."""
SIGNALS = {"logp", "ref_logp", "entropy", "mean_logp"}
"""What can be read for several arms at once: nothing that has weights of its own or a teacher."""
STATE = 16
"""Bytes for each number that moves: itself, its gradient and two moments."""
SHARE = 0.5
"""Arms are joined where a step of one fills at most this share of a micro-batch; fuller ones gain nothing."""


def parties(raws: Mapping[str, Mapping[str, Any]], plans: Mapping[str, Forecast]) -> list[list[str]]:
    """Which arms, by name, are trained together; those that cannot be, or need not, stay alone. In the order of `raws`."""
    groups: dict[str, list[str]] = {}
    for name, raw in raws.items():
        recipe = resolve(raw)
        joined = may_join(recipe) and name in plans and worth_it(plans[name])
        groups.setdefault(_likeness(recipe) if joined else name, []).append(name)
    return [part for names in groups.values() for part in _within_memory(names, plans)]


def may_join(recipe: Recipe) -> bool:
    """Whether a run can share its forwards, as far as its settings tell: a LoRA without dropout, on rows that are there already."""
    tuning, objective = recipe.resolved["tuning"], recipe.objective
    plain = tuning["method"] == "lora" and not tuning["dropout"] and leaves_base_alone(recipe) and recipe.rollout is None
    return plain and set(objective.needs) <= SIGNALS and not objective.stats and objective.aside is None


def worth_it(plan: Forecast) -> bool:
    """Whether the steps of a run are small enough for others to find room beside them."""
    step = plan.tokens.tokens / max(1, plan.tokens.rows) * plan.settings["optim"]["batch_size"]
    return bool(step <= SHARE * plan.settings["hardware"]["token_budget"])


def _likeness(recipe: Recipe) -> str:
    """What arms of one party have in common."""
    shared = {key: value for key, value in recipe.resolved.items() if key not in (*FREE, "tuning", "objective")}
    needs = {name: dict(how) for name, how in recipe.objective.needs.items()}
    return json.dumps([shared, recipe.objective.name, needs], sort_keys=True, default=str)


def _within_memory(names: Sequence[str], plans: Mapping[str, Forecast]) -> list[list[str]]:
    """Parties whose adapters and moments have room beside what one run takes; its micro-batches are no larger."""
    if len(names) < 2:
        return [list(names)]
    plan = plans[names[0]]
    room = 0.9 * plan.machine.usable - max(plans[name].memory.peak for name in names)
    made: list[list[str]] = [[]]
    used = 0.0
    for name in names:
        needs = STATE * plans[name].adapters.trainable
        if made[-1] and used + needs > room:
            made.append([])
            used = 0.0
        made[-1].append(name)
        used += needs
    return made


def joinable(run: Run) -> bool:
    """Whether a run that is ready can share its forwards: packed whatever its rows, and nothing moves but linear LoRAs."""
    layers = lora_layers(run.policy.model)
    ours = {f"{path}.{half}" for path in layers for half in "ab"}
    window = text_config(run.policy.model).to_dict().get("sliding_window")
    short = window is None or run.recipe.data.max_length < window
    simple = all(type(layer) is LoraLinear for layer in layers.values())
    return run.policy.packed and run.world.size == 1 and short and simple and set(run.policy.trainable()) == ours


def train_runs(runs: Sequence[Run], wishes: Sequence[Wishes], stores: Stores, console: Console, note: Callable[[str], None]) -> int:
    """Train runs in one loop, each into its own folder as if alone; one after the other where that is impossible. Returns the status."""
    if not all(joinable(run) for run in runs):
        note("one after the other after all: rows of tokens move too, or the model cannot be packed")
        return next((status for run, wish in zip(runs, wishes, strict=True) if (status := train_run(run, wish))), 0)
    with stopping() as stopper, ExitStack() as opened:
        starts = [opened.enter_context(taken_up(run, wish)) for run, wish in zip(runs, wishes, strict=True)]
        with ExitStack() as hooked:
            hooks = [hooked.enter_context(hooks_of(start, stopper)) for start in starts]
            rehearse(max(starts, key=lambda start: sum(parameter.numel() for parameter in start.run.policy.trainable().values())))
            arms = [
                Arm(start.engine, start.fed.source, start.run.recipe.objective, hook, start.done.step, start.done.tokens)
                for start, hook in zip(starts, hooks, strict=True)
            ]
            progress = hooked.enter_context(Progress(max(len(arm.source) for arm in arms), console=console))
            states = train_jointly(arms, joint_of(runs, stores), lambda some: _show(progress, some))
        return max(ended(start, state, stopper) for start, state in zip(starts, states, strict=True))


def joint_of(runs: Sequence[Run], stores: Stores) -> Joint:
    """One more tree over the weights that the runs share, with the adapters of all."""
    first = runs[0]
    model = stores.load(first.recipe).model
    recompute_blocks(model, first.recipe.hardware.recompute == "always")
    spans = bundle(model, {k: lora_layers(run.policy.model) for k, run in enumerate(runs)})
    return Joint(Policy.of(model, first.policy.tuning), spans, first.recipe.hardware.token_budget or 2048)


def _show(progress: Progress, states: Sequence[State]) -> None:
    """The mean of the arms in the live line; their own numbers are in their folders."""
    names = ("loss", "eval_loss", "learning_rate", "memory_bytes")
    means = {name: sum(s.metrics[name] for s in states) / len(states) for name in names if all(name in s.metrics for s in states)}
    tokens = sum(s.metrics["tokens_per_second"] * s.metrics["seconds"] for s in states)
    seconds = sum(s.metrics["seconds"] for s in states)
    progress.update(max(s.step for s in states), means | {"tokens_per_second": tokens / max(1e-9, seconds)})
