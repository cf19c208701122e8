"""`hone sweep`: the same run with other settings, many times over; each arm is an ordinary run folder inside the sweep's."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hone.core.errors import HoneError
from hone.core.files import write_atomically
from hone.eval.heldout import recall
from hone.recipe import halving, ranking, together
from hone.recipe.forecast import Forecast
from hone.recipe.grid import Arm, Axis, full_name
from hone.recipe.pipeline import finished
from hone.recipe.run import Wishes, folder_of, prepare_run, train_run, with_settings
from hone.recipe.settings import resolve
from hone.recipe.stores import Stores
from hone.recipe.words import read
from hone.recipe.written import settings_in
from hone.train.hooks import forget_peak, pause_at
from hone.train.resume import compare

FILE = "sweep.json"
UNSEEN = ("free", "inexact", "longer")
"""Rules of settings that may differ from those of an arm that is finished (see `hone.train.resume`)."""
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What shall be trained, all of it checked."""

    source: str
    plain: tuple[str, ...]
    folder: Path
    axes: tuple[Axis, ...]
    arms: tuple[Arm, ...]
    raws: Mapping[str, dict[str, Any]]
    """The sections of each arm, by the name of its folder."""

    def place(self, arm: Arm) -> Path:
        return self.folder / arm.folder

    def command(self, arm: Arm) -> str:
        """The line that trains an arm alone."""
        fixed = [word for word in self.plain if full_name(word.lstrip("-").partition("=")[0]) != "output.folder"]
        return shlex.join(["hone", "train", self.source, *fixed, *arm.words, f"output={self.place(arm)}"])


@dataclass(slots=True)
class Workshop:
    """What all arms are trained with."""

    console: Console
    note: Note
    stores: Stores = field(default_factory=lambda: Stores(shared=True))
    plans: Mapping[str, Forecast] = field(default_factory=dict)
    """What each arm will take, by its folder; those without a plan are never joined."""


def base_seed(source: str, plain: Sequence[str]) -> int:
    """The seed from which those of `--seeds` are counted."""
    return resolve(read(source, plain)[0]).seed


def plan(source: str, plain: Sequence[str], axes: Sequence[Axis], arms: Sequence[Arm]) -> Sweep:
    """Check every arm before anything runs. Raises what `hone train` would raise for its settings, naming the arm, and C145."""
    first = read(source, [*plain, *arms[0].words])[0]
    asked = first.get("output", {}).get("folder")
    folder = Path(asked) if asked else folder_of(resolve(first)).with_name("sweep-" + folder_of(resolve(first)).name)
    sweep = Sweep(source, tuple(plain), folder, tuple(axes), tuple(arms), {})
    raws = {arm.folder: sections_of(sweep, arm) for arm in arms}
    return replace(sweep, raws=raws)


def sections_of(sweep: Sweep, arm: Arm) -> dict[str, Any]:
    """The sections of one arm, checked, and checked against what an earlier start has left in its folder."""
    try:
        raw = read(sweep.source, [*sweep.plain, *arm.words])[0]
        raw = with_settings(raw, output={"folder": str(sweep.place(arm))})
        new = resolve(raw).resolved
    except HoneError as error:
        raise in_arm(error, arm) from None
    before = sweep.place(arm)
    if (before / "resolved.json").is_file():
        other = [one for one in compare(settings_in(before), new) if one.rule not in UNSEEN and one.after is not None]
        if other:
            fix = "name another folder with output=..., or remove this one"
            raise HoneError("C145", f"{sweep.place(arm)} holds a run with other settings", where="; ".join(map(str, other)), fix=fix)
    return raw


def in_arm(error: HoneError, arm: Arm) -> HoneError:
    """The same fault, saying in which arm."""
    where = f"arm {arm.folder}" + (f": {error.where}" if error.where else "")
    return HoneError(error.code, error.what, where=where, fix=error.fix)


def write(sweep: Sweep, **more: Any) -> None:
    """Keep what a sweep is, and what it has found, in sweep.json."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    file = sweep.folder / FILE
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    axes = {axis.key: list(axis.values) if not axis.is_range else [axis.low, axis.high] for axis in sweep.axes}
    arms = [{"name": arm.name, "seed": arm.seed, "folder": arm.folder, "settings": list(arm.words)} for arm in sweep.arms]
    what = {"source": sweep.source, "settings": list(sweep.plain), "axes": axes, "arms": arms}
    write_atomically(file, json.dumps(known | what | more, indent=1, ensure_ascii=False))


def run(sweep: Sweep, shop: Workshop, *, halve: bool = False) -> int:
    """Train all arms that are not finished, or with `halve` give up the worse half again and again; returns the exit status."""
    write(sweep)
    if not halve:
        return train_arms(sweep, sweep.arms, shop)
    alive, told = list(dict.fromkeys(arm.name for arm in sweep.arms)), []
    for share, keep in halving.rungs(len(alive)):
        status = train_arms(sweep, [arm for arm in sweep.arms if arm.name in alive], shop, share)
        if status:
            return status
        order = ranking.order(sweep.folder, [arm for arm in sweep.arms if arm.name in alive])
        told.append({"share": share, "order": order, "kept": order[:keep]})
        write(sweep, rungs=told)
        shop.note(f"after {100 * share:.3g} % of the steps: {', '.join(order[:keep])} go on, {', '.join(order[keep:])} not")
        alive = order[:keep]
    return train_arms(sweep, [arm for arm in sweep.arms if arm.name in alive], shop)


def train_arms(sweep: Sweep, arms: Sequence[Arm], shop: Workshop, share: float | None = None) -> int:
    """Train arms to their end, or to a share of it. Returns the status of the first that is stopped, or 0."""
    todo = [arm for arm in arms if not reached(sweep.place(arm), share)]
    if len(todo) < len(arms):
        shop.note(f"{len(arms) - len(todo)} of {len(arms)} runs are there already")
    named = {arm.folder: arm for arm in todo}
    for names in together.parties({arm.folder: sweep.raws[arm.folder] for arm in todo}, shop.plans):
        train = _train_one_by_one if len(names) == 1 else _train_together
        status = train(sweep, [named[name] for name in names], shop, share)
        if status:
            return status
    return 0


def _train_one_by_one(sweep: Sweep, arms: Sequence[Arm], shop: Workshop, share: float | None) -> int:
    for arm in arms:
        shop.note(f"\n{arm.folder}")
        forget_peak()
        try:
            run = prepare_run(sweep.raws[arm.folder], shop.console, shop.stores)
            status = train_run(run, Wishes(until=share, command=sweep.command(arm)))
        except HoneError as error:
            raise in_arm(error, arm) from None
        if status:
            return status
    return 0


def _train_together(sweep: Sweep, arms: Sequence[Arm], shop: Workshop, share: float | None) -> int:
    shop.note(f"\n{len(arms)} runs in one pass over one base: {'; '.join(arm.folder for arm in arms)}")
    forget_peak()
    quiet = Console(quiet=True, force_terminal=False)
    runs = [prepare_run(sweep.raws[arm.folder], quiet, shop.stores) for arm in arms]
    wishes = [Wishes(until=share, command=sweep.command(arm)) for arm in arms]
    return together.train_runs(runs, wishes, shop.stores, shop.console, shop.note)


def reached(folder: Path, share: float | None) -> bool:
    """Whether a run is finished, or has come as far as was asked and was measured there."""
    if finished(folder):
        return True
    found = recall(folder) if share is not None else None
    return found is not None and share is not None and found.step >= pause_at(share, found.steps)
