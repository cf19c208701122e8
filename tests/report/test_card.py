from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from hone.report.card import markdown, public, render, write_card
from hone.report.folder import read_run


def parts(text: str) -> tuple[dict[str, object], str]:
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_what_the_hub_reads(make_run: Callable[..., Path]) -> None:
    path = write_card(make_run())
    assert path.name == "README.md"
    front, _ = parts(path.read_text("utf-8"))
    assert front["base_model"] == "acme/base-1" and front["base_model_relation"] == "adapter"
    assert front["library_name"] == "peft" and front["license"] == "apache-2.0" and front["pipeline_tag"] == "text-generation"
    assert front["datasets"] == ["tatsu-lab/alpaca"] and front["tags"] == ["hone", "sft", "lora"]
    results = ModelCard(path.read_text("utf-8")).data.eval_results
    measured = [(result.dataset_type, result.metric_type, result.metric_value) for result in results]
    assert measured == [("facts", "exact_match", 0.9375), ("till", "exact_match", 0.85)]


def test_a_full_model_is_a_transformers_model(make_run: Callable[..., Path]) -> None:
    resolved = {"model": {"name": "/home/someone/models/base"}, "tuning": {"method": "full"}, "objective": {"name": "sft"}}
    front, body = parts(render(read_run(make_run(resolved__json=json.dumps(resolved)))))
    assert front["library_name"] == "transformers" and "base_model" not in front
    assert "peft" not in body and "town-run/model" in body


def test_the_card_names_data_recipe_results_and_how_to_repeat(make_run: Callable[..., Path]) -> None:
    body = render(read_run(make_run())).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "| facts | exact match | 80 | 1.2 % (0.2 to 6.7 %) | **93.8 %** (86.2 to 97.3 %) | +92.5 points |",
        "100 rows, SHA-256 `9f2c9f2c",
        "| tuning.rank | 16 | 120 rows, small model |",
        "| run.seed | 42 |  |",
        "Held-out loss: 2.310 at step 1, 0.537 at step 40.",
        "hone train sft model=acme/base-1 data=rows.jsonl",
        "hone chat town-run",
        "torch 2.13.0",
    ):
        assert words in body, words


def test_a_published_card_does_not_tell_folders_of_this_machine(make_run: Callable[..., Path]) -> None:
    assert "someone" not in render(read_run(make_run()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/data/train.jsonl", "train.jsonl"),
        ("data=/home/me/x.jsonl model=a/b", "data=x.jsonl model=a/b"),
        (r"C:\Users\me\x.jsonl", "x.jsonl"),
        ("~/runs/a", "a"),
        ("https://huggingface.co/a/b", "https://huggingface.co/a/b"),
        ("town/rows.jsonl", "town/rows.jsonl"),
        ("half / half", "half / half"),
    ],
)
def test_public(text: str, shown: str) -> None:
    assert public(text) == shown


def test_the_code_of_the_card_is_python_even_with_a_nasty_prompt(make_run: Callable[..., Path]) -> None:
    prompt = '```\n"""\\ \'; import os\n</pre>'
    evaluation = {"samples": [{"task": "t", "prompt": prompt, "before": "a|b\n```\n# title", "after": "<script>x</script>"}]}
    body = render(read_run(make_run(evaluation__json=json.dumps(evaluation))))
    (code,) = re.findall(r"^```python\n(.*?)^```$", body, re.S | re.M)
    literals = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert prompt in literals
    assert len(re.findall(r"^```", body, re.M)) % 2 == 0
    assert "<script" not in body and not re.search(r"^# title", body, re.M)
    row = next(line for line in body.splitlines() if "script" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 4


def test_markdown_shows_exactly_the_text() -> None:
    assert markdown(" a|b\n\n*c* [d](e) <f> `g` ") == r"a\|b<br>\*c\* \[d\](e) &lt;f&gt; \`g\`"


def test_an_empty_folder_makes_a_modest_card(tmp_path: Path) -> None:
    _, body = parts(write_card(tmp_path).read_text("utf-8"))
    for words in ("Nothing has been measured yet.", "not recorded in this folder", "treat it as untested"):
        assert words in body
