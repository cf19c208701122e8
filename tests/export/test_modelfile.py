"""Modelfiles: the Go template writes what the chat template wrote in training, for templates of the shelf and of the wild."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

import hone.data
from hone.core.errors import HoneError
from hone.export.gotemplate import quoted, render
from hone.export.modelfile import CHECKS, go_template
from hone.export.proof.golden import Golden

GOLDEN = Golden({"now": datetime(2026, 1, 2).isoformat()}, ())
OURS = sorted((Path(hone.data.__path__[0]) / "templates").glob("*.jinja"))
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}
TOO_MUCH = {"MiroThinker", "fireworks-ai-llama-3-firefunction-v2", "mistralai-Mistral-Nemo-Instruct-2407"}
"""They need more than roles and texts, or move the system message to the last question."""


def test_the_renderer_knows_what_we_write() -> None:
    data = {"Messages": [{"Role": "system", "Content": "S"}, {"Role": "user", "Content": "{{ no }}"}], "System": ""}
    assert render("a {{- .Missing }} b", data) == "a b"
    assert render('{{ if eq .System "" }}x{{ else if .System }}y{{ else }}z{{ end }}', data) == "x"
    loop = "{{ range $i, $m := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}last:{{ end }}{{ $m.Content }};{{ end }}"
    assert render(loop, data) == "S;last:{{ no }};"
    assert render('{{ if and (ne $.System "a") (not .System) }}q{{ end }}', data) == "q"
    assert render("{{ " + quoted('line\n"x"\\') + " }}", data) == 'line\n"x"\\'


@pytest.mark.parametrize("source", ["{{ if .A }}", "{{ end }}", '{{ template "x" }}', "{{ range .A }}{{ end }}", "{{ }}", "{{ (len .A }}"])
def test_what_it_does_not_know_it_refuses(source: str) -> None:
    with pytest.raises(HoneError) as caught:
        render(source, {"A": [1]})
    assert caught.value.code == "M086"


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
@pytest.mark.parametrize("adds_bos", [True, False])
def test_our_own_formats(file: Path, adds_bos: bool) -> None:
    source = "{{- bos_token }}" + file.read_text()
    made = go_template(source, NAMES, GOLDEN, adds_bos=adds_bos)
    text = render(made, {"Messages": [{"Role": role, "Content": content} for role, content in CHECKS[2]]})
    assert text.startswith("<s>") is not adds_bos
    assert all(content in text for _, content in CHECKS[2])


def test_templates_of_the_wild(shared: Path) -> None:
    refused = set()
    for file in sorted((shared / "data" / "chat_templates").glob("*.jinja")):
        try:
            go_template(file.read_text(), NAMES, GOLDEN, adds_bos=True)
        except HoneError as error:
            assert error.code == "M087"
            refused.add(file.stem)
    assert refused == TOO_MUCH


def test_a_template_that_counts_is_refused() -> None:
    source = "{% for m in messages %}{{ loop.index }}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    with pytest.raises(HoneError) as caught:
        go_template(source, {}, GOLDEN, adds_bos=False)
    assert caught.value.code == "M087"
