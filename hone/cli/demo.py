"""`hone demo`: the whole story in about two minutes, on the model and the data that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Option("--folder", help="Where the run is written.")] = Path("runs/demo"),
) -> None:
    """Plan, show what is learned, examine the base, fine-tune it with LoRA, examine again, and write a report."""
    from rich.text import Text

    from hone.cli.show import show_run
    from hone.cli.style import console, program
    from hone.demo.run import demo
    from hone.report.tables import before_after

    out = console()
    out.print(
        Text("A seedling of 5 million parameters has read the papers of a made-up town. Now it learns to answer questions about it.\n")
    )
    found = demo(folder, out, show_run)
    out.print(before_after(found))
    for sample in found["samples"][:5]:
        out.print(Text.assemble(("\n" + sample["prompt"].strip().splitlines()[-1], "bold")))
        for name in ("expected", "before", "after"):
            out.print(Text.assemble((f"  {name:9}", "dim"), " ".join(str(sample[name]).split())[:100]))
    out.print(f"\nIn {found['seconds']:.0f} s. The run lies in {folder}. Next:")
    name = program()
    for text in (f"chat {folder} --compare", f"eval {folder}", "train sft model=YOUR_MODEL data=YOUR_FILE.jsonl"):
        out.print(f"  {name} {text}")
    out.print(f"  open {folder / 'report.html'} in a browser")
