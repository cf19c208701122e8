"""`hone plan`: what `hone train` would do with the same arguments. Nothing is trained or written."""

from __future__ import annotations

from typing import Annotated

import typer

from hone.cli.train import command as train


def command(
    source: Annotated[str, typer.Argument(help="An objective (sft, cpt ...) or a run file (.yaml).")],
    settings: Annotated[list[str] | None, typer.Argument(help="Settings as name=value: model=..., data=..., optim.epochs=2.")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out rows that cannot be read, and count them.")] = False,
) -> int:
    """Rows, tokens, steps, memory of the weights, every setting with its reason, and the first example as it will be learned."""
    return train(source, settings, skip_bad=skip_bad, dry_run=True)
