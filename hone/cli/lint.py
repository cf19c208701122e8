"""`hone lint`: a run file against the rules of the field, each finding with its reason and the change that satisfies it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

LEVELS = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def command(
    source: Annotated[str, typer.Argument(help="A run file (.yaml), or an objective with settings behind it.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Settings as name=value.")] = None,
    fix: Annotated[str, typer.Option("--fix", help="Write the run file with all changes to this path.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Findings as JSON.")] = False,
) -> int:
    """Check a run against the rules before it costs anything. Ends with status 2 if there is an error."""
    import json
    from dataclasses import asdict

    from hone.recipe.judged import judge
    from hone.recipe.words import read

    raw, notes = read(source, settings or ())
    judged = judge(raw)
    if as_json:
        print(json.dumps({"findings": [asdict(one) for one in judged.findings], "unseen": judged.unseen}, indent=2, ensure_ascii=False))
    else:
        _show(judged, notes)
    if fix:
        _write(raw, judged, fix)
    return 2 if any(finding.level == "error" for finding in judged.findings) else 0


def _show(judged: Any, notes: list[str]) -> None:
    from hone.cli.style import beside, console, paragraph
    from hone.core.errors import catalogue
    from hone.plan.rules import RULES

    out = console()
    for note in notes:
        paragraph(out, f"note: {note}", style="dim")
    for finding in judged.findings:
        beside(out, f"{finding.code} {finding.level}", finding.what, width=14, indent=0, style=LEVELS[finding.level])
        beside(out, "why", _first_sentence(catalogue()[finding.code].why), width=12)
        if finding.change:
            words = " ".join(f"{key}={'none' if value is None else value}" for key, value in finding.change.items())
            beside(out, "change", words, width=12, style="green")
        beside(out, "source", finding.source, width=12)
    if judged.unseen:
        paragraph(out, f"model and data were not looked at: {judged.unseen}", style="yellow")
    count = len(judged.findings)
    said = "nothing to say" if not count else f"{count} finding{'s' * (count != 1)}; hone explain CODE tells more"
    paragraph(out, f"{len(RULES)} rules: {said}", style="bold")


def _first_sentence(text: str) -> str:
    head, stop, _ = " ".join(text.split()).partition(". ")
    return head + stop.strip()


def _write(raw: dict[str, Any], judged: Any, path: str) -> None:
    import yaml

    from hone.core.files import write_atomically
    from hone.recipe.judged import mended

    write_atomically(Path(path), yaml.safe_dump(mended(raw, judged.findings), sort_keys=False, allow_unicode=True))
