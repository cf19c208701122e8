"""`hone pipeline`: SFT and what follows it, in one command; run again, it goes on where it stopped."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    name: Annotated[str, typer.Argument(help="sft, sft+dpo or sft+rlhf.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="model=..., data=..., preferences=..., prompts=...; stages.ppo.optim.max_steps=50 is for one stage."),
    ] = None,
) -> int:
    """Train in stages, each from the model of the one before, and show base, SFT and SFT+X side by side.

    A stage that is finished is not done again; one that was stopped goes on from its last checkpoint.
    """
    from hone.cli.show import show_run
    from hone.cli.style import console
    from hone.recipe import measures, pipeline
    from hone.recipe.run import Wishes, prepare_run, train_run
    from hone.recipe.words import read
    from hone.report.tables import rows_table

    out = console()
    raw, notes = read(None, settings or ())
    for note in notes:
        out.print(f"note: {note}")

    def train(sections: dict[str, object]) -> int:
        run = prepare_run(sections, out)
        show_run(run, out)
        return train_run(run, Wishes())

    status = pipeline.run(name, raw, train, note=lambda text: out.print(f"\n{text}"))
    if status:
        out.print("\nstopped and saved: the same command goes on")
        return status
    out.print(rows_table(pipeline.table(name, raw, measures.of(name, raw))))
    return 0
