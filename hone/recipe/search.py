"""Choosing the next arm by what the arms before have shown: optuna's tree-structured Parzen estimator (arXiv 2304.11127)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hone.core.errors import HoneError
from hone.eval.heldout import recall
from hone.recipe.grid import Arm, Axis, draw, named, with_seeds
from hone.recipe.sweep import Sweep, Workshop, plan, train_arms, write


def optuna() -> Any:
    """The package. Raises C148 where it is not installed."""
    try:
        import optuna as found
    except ImportError:
        fix = "pip install 'hone-llm[sweep]', or draw at random: --search random"
        raise HoneError("C148", "optuna is not installed", where="--search optuna", fix=fix) from None
    found.logging.set_verbosity(found.logging.WARNING)
    return found


def run(sweep: Sweep, trials: int, shop: Workshop, *, seeds: Sequence[int] = (), seed: int = 42) -> tuple[int, Sweep]:
    """Train so many arms, each chosen after the ones before; returns the exit status and the sweep with its arms.

    The choice depends on the seed and the losses alone, so a search that was stopped asks for the same arms again, finds those
    that are finished, and goes on. Raises C148, and C146 for runs that keep no rows aside.
    """
    package = optuna()
    study = package.create_study(sampler=package.samplers.TPESampler(seed=seed, n_startup_trials=max(3, trials // 3)))
    arms: list[Arm] = []
    for number in range(trials):
        trial = study.ask()
        arm = named(sweep.axes, [_value(axis, trial) for axis in sweep.axes])
        new = [each for each in with_seeds(arm, seeds) if each.folder not in {one.folder for one in arms}]
        arms += new
        sweep = _with(sweep, arms)
        write(sweep)
        shop.note(f"\ntrial {number + 1} of {trials}: {arm.name}")
        status = train_arms(sweep, new, shop)
        if status:
            return status, sweep
        study.tell(trial, _loss(sweep, arm.name))
    return 0, sweep


def _value(axis: Axis, trial: Any) -> str:
    """What optuna suggests for an axis: a place on a range, one of a list."""
    if axis.is_range:
        return draw(axis, trial.suggest_float(axis.key, 0.0, 1.0))
    return str(trial.suggest_categorical(axis.key, list(axis.values)))


def _with(sweep: Sweep, arms: Sequence[Arm]) -> Sweep:
    checked = plan(sweep.source, [*sweep.plain, f"output={sweep.folder}"], sweep.axes, arms)
    return replace(checked, plain=sweep.plain)


def _loss(sweep: Sweep, name: str) -> float:
    found = [recall(sweep.place(arm)) for arm in sweep.arms if arm.name == name]
    known = [each.mean() for each in found if each is not None]
    if not known:
        what = "the search goes by the held-out loss, and these runs keep no rows aside"
        raise HoneError("C146", what, where="data.held_out", fix="keep some rows aside, as in data.held_out=0.1")
    return sum(known) / len(known)
