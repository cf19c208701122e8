"""`hone quantise`: a copy of a model in 4 or 8 bits, uniform, or with the layers kept that are worth their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    model: Annotated[str, typer.Argument(help="A model's folder or a hub id, in 16 or 32 bits.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the copy.")],
    kind: Annotated[str, typer.Option("--kind", help="nf4, fp4 or int8.")] = "nf4",
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Keep the layers that matter in 16 bits; needs --data.")] = False,
    data: Annotated[str | None, typer.Option("--data", help="Text to choose by: any file that can be trained on.")] = None,
    budget: Annotated[float, typer.Option("--budget", help="Bytes over those of the uniform copy.")] = 1.10,
    kl: Annotated[float | None, typer.Option("--kl", help="Come to this KL divergence (nats a token) instead, whatever it costs.")] = None,
) -> int:
    """Write a quantised copy that hone, transformers, peft and vLLM load, with a model card; a dynamic one with a report."""
    from hone.cli.style import commands, console, paragraph
    from hone.core.disk import size
    from hone.recipe.dynamic import QuantiseWish, quantise_model, scheme_for

    terminal = console()
    scheme = scheme_for(kind, dynamic=dynamic, budget=budget, kl=kl)
    wish = QuantiseWish(model=model, out=out, scheme=scheme, budget=budget, kl=kl, data=data)
    written, found = quantise_model(wish, dynamic=dynamic, tell=lambda line: paragraph(terminal, line, style="dim"))
    paragraph(terminal, f"\n{out}: {size(written.nbytes)} of weights, {size(written.plain_bytes)} before", style="bold")
    if found is not None:
        less = 100 * (1 - found.held_chosen / max(found.held_uniform, 1e-12))
        over = 100 * (found.bytes / found.uniform_bytes - 1)
        kept = f"{found.held_chosen:.5f}, uniform {found.held_uniform:.5f}"
        paragraph(terminal, f"KL on text kept aside: {kept} ({less:.0f} % less for {over:.1f} % more bytes)")
        for note in found.notes:
            paragraph(terminal, f"note: {note}")
    shown = [("look", str(out / "report.html"))] if found is not None else []
    commands(terminal, [*shown, ("train", f"hone train sft model={out} data=..."), ("try", f"hone chat {out}")])
    return 0
