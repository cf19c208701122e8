"""`hone doctor`: what ails a run, what shows it, and what to change, from the run's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hone.plan.doctor import Chart, Diagnosis
    from hone.report.diagnosis import Cure

COLOURS = {"certain": "bold red", "likely": "bold yellow", "possible": "bold cyan"}


def command(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or still at work.")],
    probe: Annotated[bool, typer.Option("--probe", help="Also load the model and measure forgetting, ends and the rank it uses.")] = False,
    apply: Annotated[int, typer.Option("--apply", help="Write the run file (or files) of this remedy.", metavar="N")] = 0,
    to: Annotated[str, typer.Option("--to", help="Where --apply writes; beside the run if left out.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The diagnosis as JSON.")] = False,
) -> int:
    """Examine a run. Ends with status 2 if there is a finding."""
    from hone.cli.style import commands, console
    from hone.recipe.doctor import apply as write
    from hone.recipe.doctor import examine

    if probe:
        from hone.recipe.probe import probe as measure

        measure(run)
    chart, diagnosis = examine(run)
    out = console()
    if apply:
        commands(out, [(str(i), one.command) for i, one in enumerate(write(run, diagnosis, apply, to=to), start=1)])
        return 0
    if as_json:
        _print(chart, diagnosis)
    else:
        show(out, run, chart, diagnosis)
    return 2 if diagnosis.findings else 0


def _print(chart: Chart, diagnosis: Diagnosis) -> None:
    import json
    from dataclasses import asdict

    facts: dict[str, Any] = {"steps": chart.steps, "base_loss": chart.base, "gain": chart.gain, "probe": dict(chart.probe)}
    print(json.dumps({**asdict(diagnosis), "facts": facts}, indent=2, ensure_ascii=False))


def show(out: Console, run: Path, chart: Chart, diagnosis: Diagnosis) -> None:
    """Print a diagnosis."""
    from hone.cli.style import beside, paragraph
    from hone.report.diagnosis import cures_of, lines, sure

    count = len(diagnosis.findings)
    paragraph(
        out, f"{run}: {'no finding' if not count else f'{count} finding' + 's' * (count != 1)} after {chart.steps:,} steps", style="bold"
    )
    _read(out, chart)
    cures = cures_of(diagnosis, run)
    for one in diagnosis.findings:
        out.print()
        beside(out, one.code, f"{one.name} ({sure(one.confidence)})", width=6, indent=0, style=COLOURS[sure(one.confidence)])
        paragraph(out, one.verdict, indent=2)
        for told in one.evidence:
            beside(out, "-", told, width=2)
        for line in lines(chart, one, width=min(out.width, 78) - 2):
            out.print("  " + line, soft_wrap=True)
        for cure in cures[one.code]:
            _cure(out, cure)
        paragraph(out, f"source: {one.source}", indent=2, style="dim")
    _rest(out, diagnosis)


def _read(out: Console, chart: Chart) -> None:
    """How the losses read: against the base model, on held-out rows, and with the field's bands."""
    from hone.cli.style import paragraph
    from hone.plan.doctor.fit import band

    if chart.base is not None and chart.gain is not None:
        paragraph(
            out, f"held-out loss {chart.base:.3f} for the base model, {chart.held[-1]:.3f} now: {100 * chart.gain:.0f} % of it is gone"
        )
    if chart.imitates and not chart.reinforces and (late := chart.late()) is not None:
        paragraph(out, f"training loss on learned tokens {late:.3f} ({band(late)})")


def _cure(out: Console, cure: Cure) -> None:
    from hone.cli.style import beside

    beside(out, f"{cure.number}", cure.title, width=4, style="green")
    for words in (cure.sweep,) if cure.sweep else cure.words:
        beside(out, "", words, width=4, indent=4, style="dim")


def _rest(out: Console, diagnosis: Diagnosis) -> None:
    from hone.cli.style import beside, paragraph

    out.print()
    if diagnosis.clear:
        paragraph(out, f"not found: {', '.join(diagnosis.clear)}", style="dim")
    if diagnosis.unknown:
        paragraph(out, "not enough evidence for:", style="dim")
        for name, missing in diagnosis.unknown.items():
            beside(out, name, f"wants {missing}", width=26)
    if any(remedy.changes for _, remedy in diagnosis.remedies):
        paragraph(out, "hone doctor RUN --apply N writes the run file of remedy N; hone explain CODE tells more", style="bold")
