"""The picture of a model's layers: a row a block, a column a kind, a ring round what was chosen."""

from __future__ import annotations

from xml.etree import ElementTree

from hone.plan.packed import Scheme
from hone.report.heat import Cell, heat_map, place_of
from hone.report.quantised import Told, papers

LAYER = {"outputs": 2, "inputs": 2, "plain_bytes": 8, "packed_bytes": 2, "weight": 0.1, "outlier": 9.0}
DOCUMENT = {
    "layers": [LAYER | {"path": f"model.layers.{i}.mlp.{kind}", "output": 0.1 * (i + 1)} for i in range(3) for kind in ("up", "down")],
    "choices": [{"path": "model.layers.2.mlp.up", "kl": 0.01, "gain": 0.02, "extra": 6}],
    "uniform_bytes": 100, "bytes": 106, "uniform": 0.03, "chosen": 0.01, "held_uniform": 0.04, "held_chosen": 0.02,
    "tokens": 10, "held_tokens": 12, "notes": ("a note",),
}  # fmt: skip


def test_every_layer_has_its_cell_and_every_choice_its_ring() -> None:
    cells = [
        Cell(f"model.layers.{i}.mlp.{kind}", i + 0.5, f"<{i}>", 1 if (i, kind) == (1, "up") else None)
        for i in range(3)
        for kind in ("up", "down")
    ]
    drawn = ElementTree.fromstring(str(heat_map(cells)))
    looks = [rect.attrib["class"] for rect in drawn.iter("rect")]
    assert looks.count("cell") == 6 and looks.count("ring") == 1
    shades = [float(rect.attrib["fill-opacity"]) for rect in drawn.iter("rect") if rect.attrib["class"] == "cell"]
    assert min(shades) > 0 and max(shades) == 1
    assert place_of("model.layers.12.self_attn.q_proj") == ("12", "q_proj")


def test_the_papers_tell_the_figures_and_the_choices() -> None:
    told = papers("org/model", Scheme("nf4", double=True, skip=("model.layers.2.mlp.up",)), Told.of(DOCUMENT, "folder/text.jsonl"))
    assert set(told) == {"README.md", "quantisation.json", "report.html"}
    assert "base_model: org/model" in told["README.md"] and "`model.layers.2.mlp.up`" in told["README.md"]
    assert "0.04000 | 0.02000" in told["README.md"] and "a note" in told["README.md"] and "folder" not in told["README.md"]
    assert told["report.html"].count('class="ring"') == 1 and "<script" not in told["report.html"]
    assert set(papers("org/model", Scheme("int8"), None)) == {"README.md"}
