"""`hone sweep`: the same run with other settings, side by side, and whether the best is really better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hone.recipe.costing import Cost
    from hone.recipe.grid import Arm, Axis
    from hone.recipe.ranking import Ranking
    from hone.recipe.sweep import Sweep


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE [SETTINGS]...",
            help="As for `hone train`; a setting with several values is varied: tuning.rank=8,16 or optim.learning_rate=1e-5..1e-3.",
        ),
    ],
    halving: Annotated[bool, typer.Option("--halving", help="Give up the worse half early, again and again.")] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=0, help="Train each arm with so many seeds.")] = 0,
    search: Annotated[str, typer.Option("--search", help="random or optuna, instead of all combinations.")] = "",
    trials: Annotated[int, typer.Option("--trials", min=2, help="Arms of a search.")] = 8,
    questions: Annotated[int, typer.Option("--questions", min=0, help="Held-out questions that each arm answers; 0 for none.")] = 32,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; train nothing.")] = False,
) -> int:
    """Train every combination and rank them on held-out rows. The same command goes on where it stopped.

    A setting without values takes those that the field's guides try: `hone sweep sft model=M data=D optim.learning_rate`.
    """
    from hone.cli.style import console, paragraph
    from hone.core.errors import HoneError
    from hone.recipe import search as searching
    from hone.recipe import sweep as sweeping
    from hone.recipe.costing import check_memory

    if search and halving:
        raise HoneError("C004", "--halving and --search choose arms in two ways", where="hone sweep", fix="keep one of the two")
    out = console()
    source, *settings = words
    sweep, many = _arms(source, settings, seeds, search, trials)
    cost = _plan(sweep, out, halve=halving, times=many, searching=bool(search))
    check_memory(cost)
    if dry_run:
        return 0
    plans = {arm.folder: plan for arm, plan in cost.arms}
    shop = sweeping.Workshop(out, note=lambda text: paragraph(out, text), plans=plans)
    if search == "optuna":
        first = sweeping.base_seed(source, sweep.plain)
        status, sweep = searching.run(sweep, trials, shop, seeds=range(first, first + seeds), seed=first)
    else:
        status = sweeping.run(sweep, shop, halve=halving)
    if status:
        paragraph(out, "\nstopped and saved: the same command goes on")
        return status
    _told(sweep, out, questions, shop)
    return 0


def _arms(source: str, settings: list[str], seeds: int, search: str, trials: int) -> tuple[Sweep, float]:
    """The sweep, and how many times over what it lists it will cost (a search that asks lists only its first arm)."""
    from hone.core.errors import HoneError
    from hone.recipe import grid
    from hone.recipe import search as searching
    from hone.recipe import sweep as sweeping

    if search not in ("", "random", "optuna"):
        raise HoneError("C003", f"there is no search '{search}'", where="--search", fix="known: optuna, random")
    plain, axes = grid.axes_of(settings)
    first = sweeping.base_seed(source, plain)
    all_seeds = range(first, first + seeds)
    if not search:
        arms, many = grid.arms_of(axes, seeds=all_seeds), 1.0
    elif not axes:
        raise HoneError("C143", "a search needs something to vary", where="--search", fix="as in optim.learning_rate=1e-5..1e-3")
    elif search == "optuna":
        searching.optuna()
        middle = grid.named(axes, [grid.draw(axis, 0.5) for axis in axes])
        arms, many = grid.with_seeds(middle, all_seeds), float(trials)
    else:
        some = grid.drawn(axes, trials, seed=first)
        arms, many = [each for arm in some for each in grid.with_seeds(arm, all_seeds)], 1.0
    return sweeping.plan(source, plain, axes, arms), many


def _plan(sweep: Sweep, out: Console, *, halve: bool, times: float, searching: bool) -> Cost:
    """Show what will be done and what it takes, before anything is."""
    from hone.cli.style import pairs, paragraph
    from hone.plan.hardware import hardware
    from hone.plan.machines import here
    from hone.recipe.costing import cost
    from hone.report.numbers import duration, size

    device = str(next(iter(sweep.raws.values())).get("hardware", {}).get("device", "auto"))
    found = cost(sweep, here(hardware("."), device), halve=halve)
    paragraph(out, f"{_count(sweep, times)} in {sweep.folder}", style="bold")
    rows = [(axis.key, _axis(axis)) for axis in sweep.axes]
    steps = sorted({one.steps for _, one in found.arms})
    span = str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    rows.append(("steps", f"{span} a run" + (f"; with halving about {found.runs * times:.1f} whole runs" if halve else "")))
    if found.seconds is not None:
        low, high = duration(found.low * times), duration(found.high * times)
        rows.append(("time", f"{duration(found.seconds * times)} in all ({low} to {high}): {found.arms[0][1].time.basis}"))  # type: ignore[union-attr]
    machine = found.arms[0][1].machine
    rows.append(("memory", f"{size(found.peak)} at most, of {size(machine.usable)} on {machine.name}"))
    rows.append(("disk", f"{size(found.disk * times)} at most"))
    pairs(out, rows)
    return found


def _count(sweep: Sweep, times: float) -> str:
    from hone.report.numbers import count

    seeds = len({arm.seed for arm in sweep.arms if arm.seed is not None})
    text = count(round(len(sweep.arms) * times), "run")
    return text + (f" with {seeds} seeds each" if seeds and len(sweep.arms) > seeds else "")


def _axis(axis: Axis) -> str:
    return f"{axis.low:g} to {axis.high:g}" if axis.is_range else ", ".join(axis.values)


def _told(sweep: Sweep, out: Console, questions: int, shop: Any) -> None:
    """The table, the verdict, and what to do next."""
    from hone.cli.style import commands, paragraph
    from hone.recipe import ranking
    from hone.recipe import sweep as sweeping
    from hone.recipe.pipeline import finished

    arms = [arm for arm in sweep.arms if finished(sweep.place(arm))]
    if questions and not any("rollout" in raw for raw in sweep.raws.values()):
        _ask(sweep, arms, questions, shop)
    found = ranking.rank(sweep.folder, arms)
    out.print()
    out.print(table(found))
    paragraph(out, "\n" + found.verdict)
    further = ranking.edge(sweep.axes, arms, found.places[0].name)
    if further:
        paragraph(out, f"The best value is the last of its list: {further} may be better still.")
    if not found.paired:
        paragraph(out, "The arms were measured on different rows, so the intervals are wide.", style="dim")
    sweeping.write(sweep, ranking=found.to_json())
    best = found.places[0].folders[0]
    others = [str(place.folders[0]) for place in found.places[1:3]]
    rows = [("talk", f"hone chat {best}"), ("take along", f"hone export {best} --to merged")]
    rows += [("compare", f"hone compare {best} {' '.join(others)}")] if others else []
    commands(out, [*rows, ("train alone", sweep.command(_arm_in(sweep, best.name)))])


def _arm_in(sweep: Sweep, folder: str) -> Arm:
    return next(arm for arm in sweep.arms if arm.folder == folder)


def table(found: Ranking) -> Any:
    """The ranking, at any width from 60 columns on."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from hone.report.terminal import tame

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    shown.add_column("", justify="right")
    shown.add_column("arm", overflow="fold", ratio=1)
    shown.add_column(found.by, justify="right", no_wrap=True)
    shown.add_column("behind", justify="right", no_wrap=True)
    score, seeds = any(p.score for p in found.places) and found.by != "answers", any(p.spread is not None for p in found.places)
    if score:
        shown.add_column("right", justify="right", no_wrap=True)
    if seeds:
        shown.add_column("seeds", justify="right", no_wrap=True)
    for i, place in enumerate(found.places, start=1):
        behind = ""
        if place.behind is not None:
            low, high = found.change(place.behind.low), found.change(place.behind.high).removesuffix(" points")
            behind = f"{low.removesuffix(' points')} to {high}"
        row: list[str | Text] = [
            str(i),
            Text(tame(place.name.replace(",", "\n")), style="bold" if i == 1 else ""),
            found.text(place.value.value),
            behind,
        ]
        row += [f"{100 * place.score.value:.1f} %" if place.score else ""] if score else []
        row += [f"± {found.change(place.spread).removesuffix(' points')}" if place.spread is not None else ""] if seeds else []
        shown.add_row(*row)
    return shown


def _ask(sweep: Sweep, arms: list[Arm], questions: int, shop: Any) -> None:
    """Let every arm answer held-out questions, once."""
    from contextlib import nullcontext

    from hone.cli.eval import How, held_out, measure
    from hone.eval import answers
    from hone.recipe.opening import Bases, open_model

    bases, how = Bases(), How(("auto",), questions, 64)
    for arm in arms:
        folder = sweep.place(arm)
        if answers.recall(folder) is not None:
            continue
        shop.note(f"questions: {arm.folder}")
        opened = open_model(folder, load=bases)
        answers.save(folder, measure(opened, held_out(opened, []), how, lambda what: nullcontext()))
