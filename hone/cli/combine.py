"""`hone combine`: LoRAs of one base, each with its weight, added up into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PAPERS = ("tokenizer*", "special_tokens_map.json", "chat_template*")
"""What lies beside an adapter so that it can be talked with; taken from the first."""


def command(
    adapters: Annotated[
        list[str], typer.Argument(help="Runs or adapter folders with their weights: runs/law=0.7 runs/tone=0.3; 1 if none.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the sum.")],
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="The best sum of this rank. Without it the sum is exact.")] = None,
) -> int:
    """Write the LoRA whose change is the weighted sum of others'. Raises M003 for LoRAs of unlike bases, M044 for what is no sum."""
    import shutil

    from hone.cli.style import commands, console, paragraph
    from hone.tuning.combine import add_up

    weights: dict[Path, float] = {}
    for folder, weight in map(weighed, adapters):
        weights[folder] = weights.get(folder, 0.0) + weight
    add_up(weights, out, rank=rank)
    for file in (file for pattern in PAPERS for file in next(iter(weights)).glob(pattern)):
        shutil.copyfile(file, out / file.name)
    terminal = console()
    paragraph(terminal, " + ".join(f"{weight:g} x {folder}" for folder, weight in weights.items()), style="bold")
    commands(terminal, [("try", f"hone chat {out}"), ("merge", f"hone export {out} --to merged")])
    return 0


def weighed(word: str) -> tuple[Path, float]:
    """The adapter's folder, of a run or by itself, and its weight: "runs/a=0.5", or "runs/a" for 1."""
    from hone.tuning.folder import of_run

    name, mark, number = word.rpartition("=")
    try:
        folder, weight = (Path(name), float(number)) if mark else (Path(word), 1.0)
    except ValueError:  # the name itself has the mark in it
        folder, weight = Path(word), 1.0
    return of_run(folder), weight
