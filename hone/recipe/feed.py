"""What a run is fed with: a fixed dataset, or prompts that the policy answers itself; and how it is measured meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from hone.core.functions import function_at
from hone.core.types import Conversation, Signals
from hone.data.chat import ChatTemplate
from hone.data.offline import Offline
from hone.data.prepare import Prepared, prepare
from hone.data.shapes import check_shape
from hone.data.sharing import heaviest
from hone.models.load import Loaded
from hone.recipe.aside import NOTHING, Kept, Sums, kept_groups, sums_by_row
from hone.recipe.build import held_out_loss
from hone.recipe.hooks import RowLosses
from hone.recipe.hooks import Written as Tell
from hone.recipe.idle import check_watched
from hone.recipe.opening import open_model
from hone.recipe.settings import Recipe
from hone.recipe.supply import supply
from hone.rollout.draft import Pen, Writer, single_turn
from hone.rollout.env import multi_turn
from hone.rollout.gate import gate
from hone.rollout.on_policy import Crew, OnPolicy
from hone.rollout.prompts import Prompt
from hone.rollout.questions import Questions, prepare_questions
from hone.rollout.ranks import agreed, shared
from hone.rollout.reading import reader
from hone.rollout.rewards import Panel, Tools, Verdict, Written
from hone.rollout.sample import Sampler, context_of
from hone.rollout.settings import RolloutSettings
from hone.rollout.vllm import VllmWriter, start
from hone.train.engine import Engine
from hone.train.hooks import Between
from hone.train.loop import Hook, Source

if TYPE_CHECKING:
    from hone.recipe.run import Run

EVERYTHING = 10**18
"""A token budget that cuts nothing."""
CHECKED_EVERY = 50
"""Rollouts between two comparisons of the sampler's log-probabilities with the policy's, which are the same kernels."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Where the steps come from, how the model is measured on what was kept aside, and who tells of it."""

    source: Source
    measure: Callable[[Between], Mapping[str, float]] | None
    hooks: tuple[Hook, ...] = ()
    hardest: Callable[[], object] | None = None
    """The heaviest part of an evaluation, for the rehearsal."""
    by_row: Callable[[], Sums] | None = None
    """The same measure, row by row."""
    kept: Kept = NOTHING
    """The rows that it is of."""


def check_data(recipe: Recipe) -> None:
    """Before any model is loaded: P004 for a fixed dataset of another kind than the objective learns from, C135 where nothing is held out
    and something watches the held-out loss."""
    check_watched(recipe.resolved)
    if recipe.rollout is None:
        check_shape(recipe.data, recipe.objective.data, objective=recipe.objective.name)


def prepared_for(recipe: Recipe, loaded: Loaded, template: ChatTemplate) -> Prepared:
    """The data of a run, or the prompts that it answers itself."""
    context = recipe.tuning.room(context_of(loaded.model))
    if recipe.rollout is not None:
        longest = min(recipe.data.max_length, context or recipe.data.max_length)
        return prepare_questions(recipe.data, template, room=longest - recipe.rollout.sampling.max_new_tokens)
    asked = {"shape": recipe.objective.data, "facts": recipe.objective.facts, "classes": recipe.objective.full.get("classes", ())}
    return prepare(recipe.data, loaded.tokenizer, template, context=context, **asked)


def feed(run: Run, engine: Engine) -> Feed:
    """The source of a run. The policy must not have moved yet, since the reference may be asked now."""
    prepared = run.prepared
    return _online(run, engine, prepared) if isinstance(prepared, Questions) else _offline(run)


def _offline(run: Run) -> Feed:
    recipe, optim = run.recipe, run.recipe.optim
    budget = recipe.hardware.token_budget or 2048
    given = supply(recipe, run.loaded, run.prepared, run.policy)
    source = Offline(
        given.groups, step_groups=optim.batch_size, budget=budget, epochs=optim.epochs or 1.0,
        max_steps=optim.max_steps, seed=recipe.seed, shuffle=recipe.data.shuffle,
    ).asking(given.aside)  # fmt: skip
    if not given.held_out:
        return Feed(source, None)
    told = RowLosses(run.events)
    hear = told.hear if recipe.objective.data == "single" and "logp" in recipe.objective.needs else _deaf
    rows = heaviest(given.held_out, budget)
    groups, aside = [given.held_out[i] for i in rows], [given.held_out_aside[i] for i in rows if given.held_out_aside]
    return Feed(
        source,
        partial(held_out_loss, run.policy, given.held_out, recipe.objective, budget, aside=given.held_out_aside, hear=hear),
        (told,),
        hardest=partial(held_out_loss, run.policy, groups, recipe.objective, EVERYTHING, aside=aside),
        by_row=partial(sums_by_row, run.policy, given.held_out, recipe.objective, budget, aside=given.held_out_aside),
        kept=kept_groups(given.held_out),
    )


def _deaf(signals: Signals) -> None:
    """Rows that are compared have no loss of their own."""


def _online(run: Run, engine: Engine, questions: Questions) -> Feed:
    recipe, rollout, optim = run.recipe, run.recipe.rollout, run.recipe.optim
    assert rollout is not None
    live = replace(recipe, hardware=replace(recipe.hardware, signals="live"))
    supply(live, run.loaded, questions, run.policy)
    crew = crew_of(run, engine, rollout)
    once = -(-len(questions.asked) // optim.batch_size) * rollout.passes
    total = optim.max_steps or max(1, round((optim.epochs or 1.0) * once))
    budget = recipe.hardware.token_budget or 2048
    together = crew if crew.sync else replace(crew, pen=shared(crew.pen, run.world), agree=agreed(run.world))
    source = OnPolicy(together, questions.asked, rollout, step_prompts=optim.batch_size, total_steps=total, budget=budget, seed=recipe.seed)
    kept = questions.kept[: recipe.eval.max_rows]
    judged = bool(kept) and (bool(rollout.wanted) or rollout.environment is not None)
    if not judged:
        return Feed(source, None, (Tell(source),))
    greedily = partial(judged_greedily, crew, kept, rollout)
    rows = Kept.of((prompt.origin, prompt.ids) for prompt in kept)
    return Feed(source, lambda _: rewarded(greedily()), (Tell(source),), by_row=lambda: rewards_by_row(greedily()), kept=rows)


def crew_of(run: Run, engine: Engine, rollout: RolloutSettings) -> Crew:
    """Those who write, judge, credit and check in a run."""
    tools = Tools(seconds=rollout.timeout, log=run.folder / "rewards.log" if run.folder.is_dir() else None, scorer=_scorer)
    read = reader(run.policy, budget=run.recipe.hardware.token_budget or 2048)
    writer, sync, synced = _writer(run, engine, rollout)
    return Crew(
        pen=_pen(run, rollout, writer),
        panel=Panel.of(rollout.wanted, tools, on_error=rollout.on_error, tell=run.events.emit),
        credit=rollout.scheme,
        read=read,
        version=lambda: engine.taken,
        check=gate(read, every=1 if sync else CHECKED_EVERY, synced=synced),
        sync=sync,
        tell=run.events.emit,
    )


def _pen(run: Run, rollout: RolloutSettings, writer: Writer) -> Pen:
    if rollout.environment is None:
        return single_turn(writer, run.template.stop_ids)
    return multi_turn(writer, run.template, function_at(rollout.environment), turns=rollout.turns)


def _writer(run: Run, engine: Engine, rollout: RolloutSettings) -> tuple[Writer, Callable[[], None] | None, Callable[[], int] | None]:
    """Who writes, how it gets the weights, and which it has."""
    if rollout.engine == "hone":
        return Sampler(run.policy.model, run.loaded.tokenizer), None, None
    adapter = run.recipe.tuning.about.artifact == "adapter"
    rank = run.recipe.resolved["tuning"].get("rank") if adapter else None
    kit = start(run.loaded.name, rank=rank, context=run.recipe.data.max_length, seed=run.recipe.seed)
    writer = VllmWriter(kit, run.loaded.tokenizer, save=lambda folder: run.policy.save(folder, base=run.loaded.base), adapter=adapter)
    return writer, lambda: writer.send(engine.taken), lambda: writer.version


def _scorer(name: str) -> Callable[[Sequence[Conversation]], Sequence[float]]:
    """A reward model, opened by the name of its run."""
    opened = open_model(name)
    return opened.score


def judged_greedily(crew: Crew, kept: Sequence[Prompt], rollout: RolloutSettings) -> Verdict:
    """What the rewards say of the greedy answers to prompts that are never learned from."""
    greedy = asdict(rollout.sampling) | {"temperature": 0.0}
    drafts = crew.pen(kept, 0, greedy)
    written = [
        Written(draft.text, prompt.conversation, prompt.row, i, draft.tokens, draft.stopped, prompt.origin)
        for i, (draft, prompt) in enumerate(zip(drafts, kept, strict=True))
    ]
    panel = Panel(crew.panel.rewards, on_error=crew.panel.on_error)
    return panel.judge(written, [draft.earned for draft in drafts])


def rewarded(verdict: Verdict) -> Mapping[str, float]:
    """The mean rewards; with the sign of a loss, that of the whole is `eval_loss`."""
    found = verdict.metrics()
    return {"eval_loss": -found["reward"]} | {f"eval_{name}": value for name, value in found.items()}


def rewards_by_row(verdict: Verdict) -> Sums:
    """The reward of each prompt; one that no reward could judge counts nothing."""
    units = tuple(float(total is not None) for total in verdict.totals)
    return {"units": units, "loss": tuple(-(total or 0.0) for total in verdict.totals), "reward": tuple(t or 0.0 for t in verdict.totals)}
