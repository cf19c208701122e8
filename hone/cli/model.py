"""`hone model`: what a model is, and what is wrong with its tokenizer and template; nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hone.plan.kinds import Identity

app = typer.Typer(
    help="What a model is, and what is wrong with its files.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A folder or a hub id; of the hub only the small files are fetched.")]) -> int:
    """Family, base or instruct, size, context, quantisation, template, licence."""
    from hone.cli.style import console, pairs
    from hone.core.disk import size
    from hone.plan.kinds import identity
    from hone.recipe.forecast import model_folder

    found = identity(name, model_folder(name, None))
    facts = found.facts
    experts = f", {facts.experts} experts" if facts.experts else ""
    rows = [
        ("model", found.name),
        ("family", f"{facts.family}, {facts.layers} layers of width {facts.hidden}{experts}"),
        ("kind", f"{found.kind}: {found.because}"),
        ("parameters", f"{facts.parameters:,}{'' if facts.exact else ' by the shape in its config'}"),
        ("weights", f"{facts.dtype or 'unknown type'}, {size(found.files) if found.files else 'not here yet'}"),
        ("quantised", found.quantised or "no"),
        *_packed(found),
        ("context", f"{facts.context:,} tokens" if facts.context else "not stated"),
        ("vocabulary", f"{facts.vocab:,}{', tied to the head' if facts.tied else ''}"),
        ("template", "its own" if found.template else "none: alpaca or chatml will be taught"),
        ("licence", found.licence or "not stated"),
    ]
    pairs(console(), rows)
    return 0


def _packed(found: Identity) -> list[tuple[str, str]]:
    """What the quantised weights take, counted from the files' headers, and what contradicts it."""
    share = found.share
    bits = f"{8 * share.nbytes / share.numbers:.3f} a weight with its scales" if share.numbers else ""
    rows = [("bits", f"{bits}: {share.numbers:,} of {found.facts.parameters:,} numbers in {share.nbytes:,} bytes")] if bits else []
    return [*rows, *([("doubt", found.doubt)] if found.doubt else [])]


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A folder or a hub id.")],
    fix: Annotated[str, typer.Option("--fix", help="Write a copy with the faults mended to this folder.")] = "",
) -> int:
    """Faults of tokenizer, template and generation settings. Ends with status 2 if there are any that are not mended."""
    from hone.cli.style import beside, console, paragraph
    from hone.plan.faults import check_model, mend
    from hone.recipe.forecast import model_folder

    out, folder = console(), model_folder(name, None)
    faults = check_model(folder)
    for fault in faults:
        beside(out, fault.code, fault.what, width=6, indent=0, style="bold yellow")
        for file, keys in fault.mend.items():
            beside(out, "mend", f"{file}: {', '.join(f'{key} = {value!r}' for key, value in keys.items())}", width=10, style="green")
    if not faults:
        paragraph(out, "nothing is wrong that is known to go wrong", style="bold green")
        return 0
    if fix:
        done = mend(folder, faults, Path(fix))
        left = len(check_model(Path(fix)))
        paragraph(out, f"mended {len(done)} of {len(faults)} in {fix}", style="bold")
        return 2 if left else 0
    return 2
