"""`hone verify`: replay a certificate on a copy of a model, and name what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from hone.export.proof.diagnose import Verdict

FAILED = 3


def command(
    artifact: Annotated[str, typer.Argument(help="Folder, .gguf file, or the address of an OpenAI-compatible server.")],
    golden: Annotated[Path | None, typer.Option(help="Folder with golden.json; without it, the artifact's own or its run's.")] = None,
    model: Annotated[str | None, typer.Option(help="For a server: the model's name there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> int:
    """Is this copy the model that was trained? Ends with 0 if it is, with 3 and the cause if not."""
    from hone.cli.style import console
    from hone.recipe.verifying import certificate_of, verify_copy, verify_server

    terminal = console()
    if artifact.startswith(("http://", "https://")):
        verdict = verify_server(artifact, certificate_of(None, golden), model=model)
    else:
        verdict = verify_copy(artifact, certificate_of(Path(artifact), golden))
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), ensure_ascii=False, indent=1))
    else:
        show(verdict, terminal)
    return 0 if verdict.passed else FAILED


def show(verdict: Verdict, terminal: Console) -> None:
    """Pass or the causes, with the numbers."""
    from hone.cli.style import beside, paragraph

    if verdict.passed:
        paragraph(terminal, f"pass: {verdict.subject}", indent=2, style="green")
    for finding in verdict.findings:
        paragraph(terminal, f"{finding.cause}: {finding.evidence}", indent=2, style="red")
    if verdict.readings and verdict.band is not None:
        total, band = verdict.total, verdict.band
        rows = [
            ("log-probabilities", f"differ by up to {total.worst:.2g} (band {band.worst:g})"),
            ("KL", f"{total.kl:.2g} nats a token (band {band.kl:g})"),
            ("likeliest token", f"the same at {100 * total.agree:.4g} % of {total.positions} places, near ties aside"),
        ]
        for label, text in rows:
            beside(terminal, label, text, width=20, indent=2)
    for note in verdict.notes:
        paragraph(terminal, note, indent=2, style="dim")
