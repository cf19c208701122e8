"""`hone train`: settings in, a run folder out. Rooms meet here; what they do is their own business."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from hone.core.disk import check_output
from hone.core.events import Events
from hone.core.files import staged_folder, write_atomically
from hone.core.types import Message
from hone.core.world import World
from hone.data.chat import ChatTemplate
from hone.data.prepare import Prepared
from hone.models.load import Loaded
from hone.models.policy import Policy
from hone.models.recompute import recompute_blocks
from hone.plan.hardware import hardware
from hone.recipe.advised import advised
from hone.recipe.build import load_base, sizes, tuned
from hone.recipe.certificate import certify
from hone.recipe.feed import Feed, check_data, feed, prepared_for
from hone.recipe.hooks import Samples, ShowProgress, Track
from hone.recipe.rehearsing import Stage, rehearsal
from hone.recipe.settings import Recipe, resolve
from hone.report import card, page
from hone.report.progress import Progress
from hone.report.trackers import open_trackers
from hone.rollout.sample import Sampler
from hone.train import checkpoint
from hone.train.engine import Engine
from hone.train.health import Health
from hone.train.hooks import Checkpoints, Evaluate, Interrupt, Metrics, Shortage, Watch
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


def prepare_run(raw: Mapping[str, Any], console: Console) -> Run:
    """Check everything, load the model, read the data, fill in what was left open. Nothing is trained or written yet."""
    world, folder = World.join(), folder_of(resolve(raw))
    raw = _remembered(raw, folder)
    recipe = resolve(raw)
    if world.main:
        check_output(folder, 0)
    check_data(recipe)
    loaded = load_base(recipe.model, recipe.hardware)
    template = ChatTemplate.of(loaded.tokenizer, recipe.data.template)
    prepared = prepared_for(recipe, loaded, template)
    recipe = advised(raw, recipe, prepared, loaded)
    recompute_blocks(loaded.model, recipe.hardware.recompute == "always")
    policy = tuned(loaded, recipe.tuning, seed=recipe.seed).grow(recipe.objective.needs)
    return Run(recipe, folder, loaded, template, prepared, policy, Events(folder if world.main else None), world, console)


def _remembered(raw: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """What an earlier start of this run chose by the machine's state, which may be another today: the type and the micro-batches."""
    file = folder / "resolved.json"
    if not file.is_file():
        return raw
    before = json.loads(file.read_text("utf-8"))["hardware"]
    kept = {key: before[key] for key in ("dtype", "token_budget", "recompute") if key in before}
    return with_settings(raw, hardware=kept | dict(raw.get("hardware", {})))


def train_run(run: Run, wishes: Wishes) -> int:
    """Train, or go on training, and write the run folder; returns the exit status (see `hone.train.stopping`)."""
    recipe, world = run.recipe, run.world
    engine = Engine(run.policy, recipe.optim, world=world, sampler=Sampler(run.policy.model, run.loaded.tokenizer).generate)
    check_output(run.folder, (recipe.output.keep + 2) * checkpoint.needed_bytes(engine.save()))
    with run_lock(run.folder) if world.main else nullcontext(), stopping() as stopper:
        fed = feed(run, engine)
        done = _take_up(run, wishes, engine)
        fed.source.restore(done.source)
        with _hooks(run, fed, engine, stopper, done) as hooks:
            rehearsal(engine, fed, recipe.objective, Stage(run.folder, run.loaded.base, run.events))
            state = train(engine, fed.source, recipe.objective, hooks, done=done.step, tokens=done.tokens, seed=recipe.seed)
        if stopper.requested and state.step < state.total:
            run.events.emit("stopped", step=state.step, reason=state.stop)
            return stopper.exit_status
        if world.main:
            _finish(run, engine, state)
    return 0


@dataclass(slots=True)
class Done:
    """How far an earlier start of this run came."""

    step: int = 0
    tokens: int = 0
    health: Mapping[str, Any] | None = None
    watched: Mapping[str, Any] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)


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
            saved["settings"], _settings(run), saved_data=saved["data"], new_data=fingerprint, allow_data_change=wishes.allow_data_change
        ):
            note(f"changed since the start: {difference}")
            run.events.emit("changed", what=str(difference))
        engine.load(tensors)
        done = Done(found.step, saved["tokens"], saved["health"], saved["watched"], saved["source"])
    if run.world.main:
        _papers(run, wishes, done)
    return done


def _settings(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.recipe.resolved.items() if key != "reasons"}


def _papers(run: Run, wishes: Wishes, done: Done) -> None:
    """resolved.json, recipe.yaml, ledger.json and the first event."""
    if done.step == 0:
        for name in ("metrics.jsonl", "events.jsonl", "evaluation.json", "memory.json"):
            (run.folder / name).unlink(missing_ok=True)
    run.events.rewind(done.step)
    write_atomically(run.folder / "resolved.json", json.dumps(run.recipe.resolved, indent=2, ensure_ascii=False))
    write_atomically(run.folder / "recipe.yaml", yaml.safe_dump(_settings(run), sort_keys=False, allow_unicode=True))
    run.prepared.ledger.save(run.folder / "ledger.json")
    facts = sizes(run.policy) | {"base_fingerprint": run.loaded.fingerprint, "data": run.prepared.sources, "environment": _environment()}
    command = wishes.command or shlex.join(["hone", *sys.argv[1:]])
    run.events.emit("resumed" if done.step else "started", step=done.step, command=command, **facts)


def _environment() -> dict[str, Any]:
    found = asdict(hardware("."))
    return {key: value for key, value in found.items() if value} | {name: version(name) for name in ("torch", "transformers", "hone-llm")}


@contextmanager
def _hooks(run: Run, fed: Feed, engine: Engine, stopper: Stopper, done: Done) -> Iterator[tuple[Hook, ...]]:
    """All that happens beside the loop, in order."""
    recipe, events = run.recipe, run.events
    watch, output = recipe.eval, recipe.output
    health = Health(events.emit, limit=recipe.optim.skip_limit)
    if done.health is not None:
        health.restore(done.health)
    hooks: list[Hook] = [Watch(health), *fed.hooks]
    evaluate = None
    if fed.measure is not None:
        evaluate = Evaluate(fed.measure, events, every=watch.every or 1, patience=watch.patience)
        evaluate.best = dict(done.watched) if done.watched else evaluate.best
        hooks.append(evaluate)
    hooks.append(Metrics(events, every=output.log_every, steps_per_epoch=fed.source.steps_per_epoch))
    with Progress(len(fed.source), console=run.console) if run.world.main else nullcontext() as progress:
        if progress is not None:
            context = {"settings": _settings(run), "data": run.prepared.fingerprint}
            parts = {"evaluate": evaluate, "health": health, "source": fed.source}
            trackers = open_trackers(output.trackers, events=events)
            for tracker in trackers:
                tracker.start(run.recipe.resolved)
            answer = partial(_answer, run, engine)
            shortage = Shortage(run.folder, events)
            engine.limit = shortage.recall()
            hooks += [
                Samples(answer, watch.samples, every=watch.every or 1, events=events, note=progress.note),
                ShowProgress(progress),
                Track(trackers),
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
        hooks.append(Interrupt(stopper))
        yield tuple(hooks)


def _answer(run: Run, engine: Engine, prompt: str) -> str:
    ids = run.template.prompt_ids((Message("user", prompt),))
    answer = engine.sample([ids], max_new_tokens=run.recipe.eval.max_new_tokens, stop_ids=run.template.stop_ids)[0]
    return str(run.loaded.tokenizer.decode(answer.tokens, skip_special_tokens=True))


def _finish(run: Run, engine: Engine, state: State) -> None:
    """The artifact, the report and the model card."""
    last = checkpoint.latest(run.folder, tell=run.console.print)
    best = checkpoint.read(last)[1].get("best") if last is not None and run.recipe.eval.keep_best else None
    if best is not None and best["step"] != state.step:
        engine.load(checkpoint.read(checkpoint.at(run.folder, best["step"]))[0])
        run.events.emit("best_kept", step=best["step"], loss=best["loss"])
        when = f"step {best['step']}" if best["step"] else "the start, before any training"
        run.console.print(f"kept the weights of {when}: the best held-out loss, {best['loss']:.4f}")
    name = run.recipe.tuning.about.artifact
    certify(run.policy, run.loaded.tokenizer, run.template, engine.sample, base=run.loaded.base).save(run.folder)
    with staged_folder(run.folder / name) as stage:
        run.policy.save(stage, base=run.loaded.base)
        run.loaded.tokenizer.chat_template = run.template.stored
        run.loaded.tokenizer.save_pretrained(stage)
    run.events.emit("finished", step=state.step, reason=state.stop or "the end", artifact=name)
    page.write_report(run.folder)
    card.write_card(run.folder)


def with_settings(raw: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, Any]:
    """Raw settings with some fields replaced."""
    return dict(raw) | {name: {**dict(raw.get(name, {})), **values} for name, values in sections.items()}


__all__ = ["Run", "Wishes", "prepare_run", "train_run", "with_settings"]
