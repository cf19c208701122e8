"""`hone list`: all that can be chosen by name, read from the registries themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from hone.cli.style import console, pairs, paragraph
from hone.core.errors import HoneError, catalogue
from hone.core.registry import nearest

Rows = list[tuple[str, str]]


def command(
    what: Annotated[str, typer.Argument(help="objectives, presets, methods, rewards, formats ...")] = "",
    model: Annotated[str, typer.Argument(help="For methods: model=NAME, to count what each would train of it.")] = "",
) -> None:
    """What can be chosen by name: objectives, presets, methods, rewards and so on; and the codes of errors."""
    out = console()
    if not what:
        paragraph(out, "hone list WHAT", style="bold")
        pairs(out, [(name, summary(lister)) for name, lister in LISTS.items()])
        return
    if what not in LISTS:
        raise HoneError("C003", f"there is no list of '{what}'", where="hone list", fix=nearest(what, LISTS))
    if model and what != "methods":
        raise HoneError("C005", f"'{model}' says nothing about {what}", where="hone list", fix="hone list methods model=NAME")
    pairs(out, methods_of(model.removeprefix("model=")) if model else LISTS[what]())


def objectives() -> Rows:
    """What a run can aim at (objective.name)."""
    from hone.objectives import OBJECTIVES

    return [(name, aim(objective.fn)) for name, objective in sorted(OBJECTIVES.items())]


def presets() -> Rows:
    """Ready-made settings of a method (`hone train NAME`); every one can be changed behind it."""
    from hone.recipe.words import PRESETS

    return [(file.stem, file.read_text("utf-8").partition("\n")[0].removeprefix("# ")) for file in sorted(PRESETS.glob("*.yaml"))]


def pipelines() -> Rows:
    """Several runs in a row (`hone pipeline NAME`)."""
    from hone.recipe.pipeline import PIPELINES

    return [(name, " -> ".join(stage.name for stage in stages)) for name, stages in PIPELINES.items()]


def rewards() -> Rows:
    """Who can judge answers (rollout.rewards); also file.py:function."""
    from hone.rollout.rewards import REWARDS

    return [(name, summary_of(kind.help)) for name, kind in sorted(REWARDS.items())]


def credits() -> Rows:
    """From rewards to what each answer teaches (rollout.credit)."""
    from hone.rollout.credit import CREDITS

    return [(name, summary(scheme.fn)) for name, scheme in sorted(CREDITS.items())]


def methods() -> Rows:
    """Which weights may move (tuning.method)."""
    from hone.tuning import METHODS

    return [(name, summary(method)) for name, method in sorted(METHODS.items())]


def methods_of(name: str) -> Rows:
    """What each method, as it comes, would train of a model; only its configuration is read."""
    from hone.models.load import shapes_of
    from hone.tuning import METHODS

    shapes = shapes_of(name)
    whole = METHODS["full"]().count(shapes)
    return [(method, "\n".join(_facts(METHODS[method], shapes, whole))) for method in sorted(METHODS)]


def _facts(method: Any, shapes: Any, whole: int) -> list[str]:
    """Size, memory, ways out, and when to choose a method."""
    about = method.about
    try:
        moving = method().count(shapes)
        size = 2 * whole + 16 * moving  # bf16 weights; what moves has an fp32 master, a gradient and two moments
        lines = [f"{moving:,} weights move ({100 * moving / whole:.3g} %), about {size / 1e9:.2g} GB without activations"]
    except HoneError as error:
        lines = [f"needs settings: {error.what}"]
    ways = ", ".join(about.exports)
    lines.append(f"gives {ways}" if about.mergeable else f"gives {ways}; does not fold in: {about.unmergeable}")
    return [*lines, f"for {about.when}", ""]


def formats() -> Rows:
    """Shapes of rows that are recognised by their columns (data.format)."""
    from hone.data.formats import FORMATS

    return [(name, summary(form)) for name, form in FORMATS.items()]


def templates() -> Rows:
    """Chat templates for models that come without one (data.template)."""
    import hone.data

    folder = Path(hone.data.__path__[0]) / "templates"
    return [(file.stem, "") for file in sorted(folder.glob("*.jinja"))]


def exports() -> Rows:
    """Where a trained model can be taken (hone export --to)."""
    from hone.export import TARGETS

    return [
        (name, f"{summary(target)} --quant {' | '.join(target().quants)}".removesuffix(" --quant ")) for name, target in TARGETS.items()
    ]


def errors() -> Rows:
    """The codes of errors; `hone explain CODE` tells more."""
    return [(code, entry.title) for code, entry in sorted(catalogue().items())]


def aim(thing: Any) -> str:
    """The first sentence of an objective's docstring, with its paper."""
    text = " ".join((thing.__doc__ or "").split("\n\n")[0].split())
    return text.removesuffix(".")


LISTS: dict[str, Callable[[], Rows]] = {
    each.__name__: each for each in (objectives, presets, pipelines, methods, rewards, credits, formats, templates, exports, errors)
}


def summary(thing: Any) -> str:
    """The first line of a docstring."""
    return summary_of(thing.__doc__ or "")


def summary_of(text: str) -> str:
    """The first line of a text."""
    return text.strip().partition("\n")[0]
