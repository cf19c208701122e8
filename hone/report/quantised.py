"""The papers of a quantised copy: a model card, the figures as JSON, and a page with a picture of all layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from hone.core.disk import size
from hone.plan.packed import Scheme
from hone.report.heat import Cell, heat_map

CSS = (Path(__file__).parent / "quantised.css").read_text("utf-8")
FIGURES = "quantisation.json"


class Told(NamedTuple):
    """What the papers of a dynamic copy tell; see `hone.recipe.dynamic.Dynamic`."""

    document: Mapping[str, Any]
    data: str
    """The text that layers were chosen by."""

    @classmethod
    def of(cls, document: Mapping[str, Any], data: str) -> Told:
        return cls(document, Path(data).name)


def papers(model: str, scheme: Scheme, told: Told | None) -> dict[str, str]:
    """File name -> text."""
    found = {"README.md": card(model, scheme, told)}
    if told is not None:
        found |= {FIGURES: json.dumps(told.document, indent=1) + "\n", "report.html": page(model, scheme, told)}
    return found


def card(model: str, scheme: Scheme, told: Told | None) -> str:
    """The model card, front matter included."""
    name = Path(model).name
    lines = ["---", f"base_model: {model if not Path(model).exists() else name}", "library_name: transformers", "tags:"]
    lines += ["  - bitsandbytes", f"  - {scheme.bits}-bit", "  - hone", "---", "", f"# {name} in {scheme}", ""]
    lines += [
        f"The linear layers of `{name}` quantised with bitsandbytes' {scheme.kind}. Head, embeddings, norms and routers are as they were.",
        "",
    ]
    if told is not None:
        lines += _measured(told)
    lines += ["## Use", "", "```bash", "hone chat FOLDER", "hone train sft model=FOLDER data=train.jsonl", "```", ""]
    lines += ["transformers (`AutoModelForCausalLM.from_pretrained`), peft and vLLM load it as it is.", ""]
    return "\n".join(lines)


def _measured(told: Told) -> list[str]:
    one = told.document
    over = 100 * (one["bytes"] / one["uniform_bytes"] - 1)
    kept = [f"- `{choice['path']}` (KL {choice['kl']:.5f} with it and all above)" for choice in one["choices"]]
    return [
        f"{len(kept)} layers are kept in 16 bits, chosen by how much each lowers the KL divergence from the plain model for its bytes:",
        "", *kept, "",
        "| | uniform | dynamic |", "|---|--:|--:|",
        f"| bytes of all weights | {size(one['uniform_bytes'])} | {size(one['bytes'])} (+{over:.1f} %) |",
        f"| KL on {one['held_tokens']:,} tokens kept aside, nats a token | {one['held_uniform']:.5f} | {one['held_chosen']:.5f} |",
        f"| KL on the {one['tokens']:,} tokens that it was chosen by | {one['uniform']:.5f} | {one['chosen']:.5f} |",
        "", f"The text was `{told.data}`. All figures are in `{FIGURES}`, the picture is in `report.html`.", "",
        *(f"Note: {note}.\n" for note in one["notes"]),
    ]  # fmt: skip


def page(model: str, scheme: Scheme, told: Told) -> str:
    """One page without scripts."""
    one, name = told.document, escape(Path(model).name)
    kept = {choice["path"]: i for i, choice in enumerate(one["choices"], start=1)}
    cells = [Cell(layer["path"], layer["output"], _title(layer, kept), kept.get(layer["path"])) for layer in one["layers"]]
    tiles = [
        (f"{one['held_uniform']:.4f}", "KL, uniform", "nats a token, on text kept aside"),
        (f"{one['held_chosen']:.4f}", "KL, dynamic", f"{100 * (1 - one['held_chosen'] / max(1e-12, one['held_uniform'])):.0f} % less"),
        (size(one["bytes"]), "all weights", f"{size(one['uniform_bytes'])} when uniform"),
        (str(len(kept)), "layers kept", f"of {len(cells)}"),
    ]
    shown = "".join(f"<div><b>{escape(v)}</b><span>{escape(n)}</span><i>{escape(t)}</i></div>" for v, n, t in tiles)
    rows = "".join(
        f"<tr><td>{i}</td><td>{escape(c['path'])}</td><td>{c['extra']:,}</td><td>{c['gain']:.5f}</td><td>{c['kl']:.5f}</td></tr>"
        for i, c in enumerate(one["choices"], start=1)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name} in {escape(str(scheme))}</title><style>{CSS}</style>"
        f"<h1>{name} in {escape(scheme.kind)}, dynamic</h1><section class=tiles>{shown}</section>"
        f"<h2>Error of each layer's output, and which were kept</h2>"
        f"<p>Darker is worse; a ring with a number is a layer that stays in 16 bits, in the order of choice.</p>"
        f"{heat_map(cells)}<h2>Choices</h2><table><tr><th></th><th>layer</th><th>bytes</th><th>gain</th><th>KL after</th></tr>"
        f"{rows}</table></html>\n"
    )


def _title(layer: Mapping[str, Any], kept: Mapping[str, int]) -> str:
    chosen = f"; kept as number {kept[layer['path']]}" if layer["path"] in kept else ""
    return (
        f"{layer['path']}: output error {layer['output']:.4f}, weight error {layer['weight']:.4f}, "
        f"largest input {layer['outlier']:.0f} times the median{chosen}"
    )
