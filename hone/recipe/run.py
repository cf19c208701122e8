"""`hone train`: settings in, a run folder out. Rooms meet here; what they do is their own business."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from hone.core.disk import check_output
from hone.core.events import Events
from hone.core.files import staged_folder
from hone.core.types import Message
from hone.core.world import World
from hone.data.chat import ChatTemplate
from hone.data.prepare import Prepared
from hone.eval.heldout import HeldOut
from hone.models.load import Loaded
from hone.models.policy import Policy
from hone.models.recompute import recompute_blocks
from hone.recipe.advised import advised
from hone.recipe.based import based, remembered
from hone.recipe.build import tuned
from hone.recipe.certificate import certify
from hone.recipe.feed import Feed, check_data, feed
from hone.recipe.hooks import Examine, Foresee, Samples, ShowProgress, Track
from hone.recipe.papers import settings_of, write_papers
from hone.recipe.rehearsing import Stage, rehearsal
from hone.recipe.settings import Recipe, resolve
from hone.recipe.start import started
from hone.recipe.stores import Stores
from hone.report import card, page
from hone.report.progress import Progress
from hone.report.trackers import check_trackers, open_trackers
from hone.rollout.sample import Sampler
from hone.train import checkpoint
from hone.train.engine import Engine
from hone.train.gauges import Movement
from hone.train.health import Health
from hone.train.hooks import PAUSED, Checkpoints, Evaluate, Interrupt, Metrics, Shortage, Until, Watch
from hone.train.lock import run_lock
from hone.train.loop import Hook, State, train
from hone.train.resume import check_resume
from hone.train.stopping import Stopper, stopping


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a command asks for beside the recipe."""

    fresh: bool = False
    allow_data_change: bool = False
    command: str = ""
    until: float | None = None
    """Pause after this share of the steps: saved and measured, not finished. The run goes on later as if it had never paused."""


@dataclass(slots=True)
class Run:
    """Everything that a run is made of, ready to train."""

    recipe: Recipe
    folder: Path
    loaded: Loaded
    template: ChatTemplate
    prepared: Prepared
    policy: Policy
    events: Events
    world: World
    console: Console


def folder_of(recipe: Recipe) -> Path:
    """The run folder: as asked, or named after model, objective and data."""
    if recipe.output.folder is not None:
        return Path(recipe.output.folder)
    train_data = recipe.data.train if isinstance(recipe.data.train, str) else "mixture"
    parts = (Path(recipe.model.name).name, recipe.objective.name, Path(train_data).name.split(".")[0])
    return Path("runs") / "-".join(parts)


def prepare_run(raw: Mapping[str, Any], console: Console, stores: Stores | None = None) -> Run:
    """Check everything, load the model, read the data, fill in what was left open. Nothing is trained or written yet.

    Runs that are given the same `stores` read what they have in common once.
    """
    stores = stores or Stores()
    recipe = resolve(raw)
    world, folder = World.join(), folder_of(recipe)
    if world.main:
        check_output(folder, 0)
    check_data(recipe)
    check_trackers(recipe.output.trackers)
    raw, reasons = based(remembered(started(raw, world), folder))
    recipe = resolve(raw)
    loaded = stores.load(recipe)
    template = ChatTemplate.of(loaded.tokenizer, recipe.data.template)
    prepared = stores.prepare(recipe, loaded, template)
    recipe = advised(raw, recipe, prepared, loaded, template)
    recipe.resolved["reasons"] = reasons | recipe.resolved["reasons"]
    recompute_blocks(loaded.model, recipe.hardware.recompute == "always")
    policy = tuned(loaded, recipe.tuning, seed=recipe.seed).grow(recipe.objective.needs)
    return Run(recipe, folder, loaded, template, prepared, policy, Events(folder if world.main else None), world, console)


@dataclass(frozen=True, slots=True)
class Start:
    """A run that is ready to turn the crank: locked, fed, and taken up where it was left."""

    run: Run
    wishes: Wishes
    engine: Engine
    fed: Feed
    done: Done


def train_run(run: Run, wishes: Wishes) -> int:
    """Train, or go on training, and write the run folder; returns the exit status (see `hone.train.stopping`)."""
    with stopping() as stopper, taken_up(run, wishes) as start:
        with hooks_of(start, stopper) as hooks:
            rehearse(start)
            state = train(start.engine, start.fed.source, run.recipe.objective, hooks, **start.done.train, seed=run.recipe.seed)
        return ended(start, state, stopper)


@contextmanager
def taken_up(run: Run, wishes: Wishes) -> Iterator[Start]:
    """Own the run folder while the context lasts, with the engine as the newest whole checkpoint left it."""
    sampler = Sampler(run.policy.model, run.loaded.tokenizer).generate
    engine = Engine(run.policy, run.recipe.optim, world=run.world, sampler=sampler)
    check_output(run.folder, (run.recipe.output.keep + 2) * checkpoint.needed_bytes(engine.save()))
    with run_lock(run.folder) if run.world.main else nullcontext():
        fed = feed(run, engine)
        done = _take_up(run, wishes, engine)
        fed.source.restore(done.source)
        yield Start(run, wishes, engine, fed, done)


def rehearse(start: Start) -> None:
    """Let fail now what would fail later."""
    run = start.run
    rehearsal(start.engine, start.fed, run.recipe.objective, Stage(run.folder, run.loaded.base, run.events))


def ended(start: Start, state: State, stopper: Stopper) -> int:
    """What follows the last step: nothing for a run that was stopped, else its measures and, at its end, its artifact and papers."""
    run = start.run
    if stopper.requested and state.step < state.total:
        run.events.emit("stopped", step=state.step, reason=state.stop)
        return stopper.exit_status
    if run.world.main and state.stop == PAUSED:
        _measure_rows(start, state.step, state.total)
        run.events.emit("stopped", step=state.step, reason=PAUSED)
    elif run.world.main:
        _finish(start, state)
    return 0


@dataclass(slots=True)
class Done:
    """How far an earlier start of this run came."""

    step: int = 0
    tokens: int = 0
    health: Mapping[str, Any] | None = None
    watched: Mapping[str, Any] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def train(self) -> dict[str, int]:
        """Where the loop goes on."""
        return {"done": self.step, "tokens": self.tokens}


def _take_up(run: Run, wishes: Wishes, engine: Engine) -> Done:
    """Write the run's papers and load the newest whole checkpoint, if there is one and it is of this run."""
    note: Callable[[str], None] = run.console.print
    if run.world.main:
        checkpoint.tidy(run.folder)
        if wishes.fresh:
            checkpoint.start_over(run.folder)
    found = checkpoint.latest(run.folder, tell=note)
    done = Done()
    if found is not None:
        tensors, saved = checkpoint.read(found)
        fingerprint = run.prepared.fingerprint
        for difference in check_resume(
            saved["settings"], settings_of(run), saved_data=saved["data"], new_data=fingerprint, allow_data_change=wishes.allow_data_change
        ):
            note(f"changed since the start: {difference}")
            run.events.emit("changed", what=str(difference))
        engine.load(tensors)
        done = Done(found.step, saved["tokens"], saved["health"], saved["watched"], saved["source"])
    if run.world.main:
        write_papers(run, done.step, wishes.command)
    return done


@contextmanager
def hooks_of(start: Start, stopper: Stopper) -> Iterator[tuple[Hook, ...]]:
    """All that happens beside the loop, in order."""
    run, fed, engine, done = start.run, start.fed, start.engine, start.done
    recipe, events = run.recipe, run.events
    watch, output = recipe.eval, recipe.output
    health = Health(events.emit, limit=recipe.optim.skip_limit)
    if done.health is not None:
        health.restore(done.health)
    hooks: list[Hook] = [Watch(health), Movement()]
    evaluate = None
    if fed.measure is not None:
        often = watch.every or 1
        evaluate = Evaluate(fed.measure, events, every=often, patience=watch.patience, stopped=lambda: stopper.requested)
        evaluate.best = dict(done.watched) if done.watched else evaluate.best
        hooks.append(evaluate)
    hooks += fed.hooks
    hooks.append(Metrics(events, every=output.log_every, steps_per_epoch=fed.source.steps_per_epoch))
    with Progress(len(fed.source), console=run.console) if run.world.main else nullcontext() as progress:
        if progress is not None:
            context = {"settings": settings_of(run), "data": run.prepared.fingerprint}
            parts = {"evaluate": evaluate, "health": health, "source": fed.source}
            trackers = open_trackers(output.trackers, events=events)
            for tracker in trackers:
                tracker.start(run.recipe.resolved)
            answer = partial(_answer, run, engine)
            shortage = Shortage(run.folder, events)
            engine.limit = shortage.recall()
            hooks += [
                Samples(answer, watch.samples, every=watch.every or 1, events=events, note=progress.note),
                Foresee(run.folder, events, progress.note),
                ShowProgress(progress),
                Track(trackers),
                Examine(run.folder, events=events, note=progress.note),
                shortage,
                Checkpoints(
                    run.folder,
                    every=output.save_every or 1,
                    keep=output.keep,
                    keep_best=watch.keep_best,
                    context=context,
                    parts=parts,
                    events=events,
                ),
            ]
        hooks += [Interrupt(stopper), Until(start.wishes.until)]
        yield tuple(hooks)


def _answer(run: Run, engine: Engine, prompt: str) -> str:
    ids = run.template.prompt_ids((Message("user", prompt),))
    answer = engine.sample([ids], max_new_tokens=run.recipe.eval.max_new_tokens, stop_ids=run.template.stop_ids)[0]
    return str(run.loaded.tokenizer.decode(answer.tokens, skip_special_tokens=True))


def _finish(start: Start, state: State) -> None:
    """The artifact, the measures, the report and the model card."""
    run, engine, step = start.run, start.engine, state.step
    last = checkpoint.latest(run.folder, tell=run.console.print)
    best = checkpoint.read(last)[1].get("best") if last is not None and run.recipe.eval.keep_best else None
    if best is not None and best["step"] != state.step:
        step = best["step"]
        engine.load(checkpoint.read(checkpoint.at(run.folder, step))[0])
        run.events.emit("best_kept", step=step, loss=best["loss"])
        when = f"step {step}" if step else "the start, before any training"
        run.console.print(f"kept the weights of {when}: the best held-out loss, {best['loss']:.4f}")
    _measure_rows(start, step, state.step)
    name = run.recipe.tuning.about.artifact
    certify(run.policy, run.loaded.tokenizer, run.template, engine.sample, base=run.loaded.base).save(run.folder)
    with staged_folder(run.folder / name) as stage:
        run.policy.save(stage, base=run.loaded.base)
        run.loaded.tokenizer.chat_template = run.template.stored
        run.loaded.tokenizer.save_pretrained(stage)
    run.events.emit("finished", step=state.step, reason=state.stop or "the end", artifact=name)
    page.write_report(run.folder)
    card.write_card(run.folder)


def _measure_rows(start: Start, step: int, total: int) -> None:
    """What the model at hand makes of each held-out row, into held_out.json."""
    fed, objective = start.fed, start.run.recipe.resolved["objective"]
    if fed.by_row is not None:
        HeldOut(step, total, objective, fed.kept.data, fed.kept.rows, fed.by_row()).save(start.run.folder)


def with_settings(raw: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """Raw settings with some fields replaced."""
    return dict(raw) | {name: {**dict(raw.get(name, {})), **values} for name, values in sections.items()}


__all__ = ["Run", "Start", "Wishes", "ended", "hooks_of", "prepare_run", "rehearse", "taken_up", "train_run", "with_settings"]
