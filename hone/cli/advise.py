"""`hone advise`: what to train and how, from the model, the data, the goal and the machine, each piece with its reason."""

from __future__ import annotations

from typing import Annotated

import typer

STYLES = {"high": "bold green", "fair": "bold yellow", "low": "bold red"}


def command(
    settings: Annotated[list[str] | None, typer.Argument(help="model=..., data=..., goal=behaviour|knowledge|preference ...")] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="How many rows there will be, before there are any.")] = None,
    gpu: Annotated[str, typer.Option("--gpu", help="Advise for another machine: h100, rtx4090, 24GB, cpu:16GB.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> int:
    """Base or instruct, method, rank, rate, passes, batch, template and length. `hone train` fills what is left out by the same rules."""
    import json

    from hone.cli.style import beside, console, paragraph
    from hone.core.errors import HoneError
    from hone.core.registry import nearest
    from hone.plan.counsel import counsel
    from hone.plan.hardware import hardware
    from hone.plan.machines import here, named
    from hone.recipe.matter import matter_of

    given = dict(word.partition("=")[::2] for word in settings or ())
    for key in given:
        if key not in ("model", "data", "goal"):
            raise HoneError("C002", f"advice has no setting '{key}'", where=key, fix=nearest(key, ("model", "data", "goal")))
    machine = named(gpu) if gpu else here(hardware("."))
    matter = matter_of(
        machine, model=given.get("model"), data=given.get("data"), goal=given.get("goal") or "behaviour", rows=rows, quantiser=_quantiser()
    )
    found = counsel(matter)
    if as_json:
        print(json.dumps([{"key": c.key, "value": c.value, "reason": c.reason, "confidence": c.confidence} for c in found], indent=2))
        return 0
    out = console()
    for one in found:
        beside(out, f"{one.key}", f"{one.value}", width=22, indent=0, style="bold")
        beside(out, "", f"{one.reason} ({one.confidence})", width=20, style=STYLES[one.confidence])
    words = " ".join(f"{c.key}={c.value}" for c in found if "." in c.key and not c.key.startswith(("objective", "model")))
    goal = next(c.value for c in found if c.key == "objective.name")
    paragraph(out, f"\nhone train {goal} model={given.get('model', '...')} data={given.get('data', '...')} {words}", style="bold")
    return 0


def _quantiser() -> bool:
    """Whether bitsandbytes is here, which holds a base in 4 bits on a GPU; it is not imported."""
    from importlib.util import find_spec

    return find_spec("bitsandbytes") is not None
