"""`hone plan`: what `hone train` would do with the same arguments, and what it takes. Nothing is trained or written."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer


def command(
    source: Annotated[str, typer.Argument(help="An objective (sft, cpt ...) or a run file (.yaml).")],
    settings: Annotated[list[str] | None, typer.Argument(help="Settings as name=value: model=..., data=..., optim.epochs=2.")] = None,
    gpu: Annotated[str, typer.Option("--gpu", help="Plan for another machine: h100, rtx4090, 24GB, cpu:16GB.")] = "",
    price: Annotated[str, typer.Option("--price", help="Price of the machine for an hour, or HOUR,KWH.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Count every token, also of large data.")] = False,
    probe: Annotated[bool, typer.Option("--probe", help="Load the model and time a few micro-batches.")] = False,
) -> int:
    """Tokens, steps, memory by phase and part, the most that fits, time, disk and price; and every setting with its reason."""
    from hone.cli.plan_view import as_document, show
    from hone.cli.style import console
    from hone.core.errors import HoneError
    from hone.plan.hardware import hardware
    from hone.plan.machines import here, named
    from hone.recipe.forecast import Wish, forecast
    from hone.recipe.words import read

    started = time.perf_counter()
    raw, renamed = read(source, settings or ())
    if probe and gpu:
        raise HoneError("C004", "--probe measures this machine, and --gpu names another", where="hone plan", fix="leave one of them out")
    hour, kwh = _prices(price)
    machine = named(gpu) if gpu else here(hardware("."), str(raw.get("hardware", {}).get("device", "auto")))
    found = forecast(raw, Wish(machine, hour, kwh, exact, _measured(raw) if probe else None))
    if as_json:
        print(json.dumps(as_document(found), indent=2, ensure_ascii=False))
    else:
        show(found, console(), notes=[f"note: {note}" for note in renamed], seconds=time.perf_counter() - started)
    return 0


def _prices(text: str) -> tuple[float | None, float | None]:
    """(an hour, a kilowatt-hour). Raises C001 for what is no price."""
    from hone.core.errors import HoneError

    if not text:
        return None, None
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 2 or min(parts) < 0:
        raise HoneError(
            "C001", f"'{text}' is no price", where="--price", fix="--price 2.5 for an hour, or --price 2.5,0.3 with a kWh beside"
        )
    return parts[0], parts[1] if len(parts) == 2 else None


def _measured(raw: dict[str, Any]) -> float:
    from hone.recipe.trial import tokens_per_second

    return tokens_per_second(raw)
