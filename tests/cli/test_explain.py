"""`hone explain` and its glossary: everything that it points to exists, in both languages, at any width."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from hone.cli.explain import show
from hone.cli.knowledge import kind, look_up, settings_pages
from hone.cli.main import main
from hone.core import errors
from hone.core.errors import HoneError, catalogue
from hone.core.terms import glossary

CHINESE = re.compile(r"[\u4e00-\u9fff]")


@pytest.mark.parametrize("code", catalogue())
def test_every_code_has_a_page(code: str) -> None:
    page = look_up(code.lower())
    assert page.title == f"{code}: {catalogue()[code].title}"
    assert page.text
    assert dict(page.lines)["fix"]


def test_every_code_is_explained_in_chinese_once() -> None:
    """A title, and after it what mends it, in Chinese and with its punctuation."""
    thin = [code for code, entry in catalogue().items() if len(CHINESE.findall(entry.zh)) < 12]
    assert thin == []
    assert [code for code, entry in catalogue().items() if re.search(r"[\u4e00-\u9fff][,;:?]", entry.zh)] == []
    there = yaml.safe_load((Path(errors.__file__).parent / "codes.zh.yaml").read_text("utf-8"))
    own = {
        code
        for file in (Path(errors.__file__).parent / "codes").glob("*.yaml")
        for code, entry in yaml.safe_load(file.read_text("utf-8")).items()
        if "zh" in entry
    }
    assert there.keys() <= catalogue().keys() and not there.keys() & own
    page = look_up("F002", "zh")
    assert CHINESE.search(page.title) and CHINESE.search(page.text) and page.title.startswith("F002: ")


@pytest.mark.parametrize("key", glossary())
def test_every_word_is_found_by_all_its_names_in_both_languages(key: str) -> None:
    term = glossary()[key]
    for name in (key, *term.names, term.names[0].upper(), f" {term.names[0]} "):
        assert look_up(name).text == term.en, name
    assert len(term.en) > 80
    assert not CHINESE.search(term.en)
    assert look_up(key, "zh").text == term.zh
    assert len(CHINESE.findall(term.zh)) > 20
    assert not re.search(r"[\u4e00-\u9fff][,;:?]", term.zh), "Chinese has punctuation of its own"


def test_names_and_references_are_sound() -> None:
    names = [name.casefold() for term in glossary().values() for name in term.names]
    assert len(names) == len(set(names))
    assert {key for term in glossary().values() for key in term.see} <= glossary().keys()
    assert {term.setting for term in glossary().values() if term.setting} <= settings_pages().keys() | {"tuning.method", "objective.name"}


def test_every_word_leads_on() -> None:
    assert [key for key, term in glossary().items() if not term.see] == []


def test_the_swapped_words_are_told_apart() -> None:
    for word in ("online", "offline", "on-policy"):
        assert "swapped" in look_up(word).text
        assert "\u5199\u53cd" in look_up(word, "zh").text


def test_a_setting_has_type_range_and_default() -> None:
    page = look_up("optim.learning_rate")
    assert "2e-4" in page.text
    assert dict(page.lines) == {"type": "number > 0, < 1 or none", "default": "none"}
    assert dict(look_up("optim.schedule").lines)["type"] == "linear | cosine | constant"
    assert dict(look_up("model.name").lines)["default"] == "none, it must be given"


def test_every_setting_says_what_it_is() -> None:
    silent = [name for name, page in settings_pages().items() if not page.text and "." in name and not name.startswith("objective.")]
    assert silent == []


def test_sections_methods_and_habits_are_known() -> None:
    assert "learning_rate" in dict(look_up("optim").lines)
    assert {"full", "lora"} <= dict(look_up("tuning").lines).keys()
    assert "tuning.rank" in look_up("tuning").see
    assert look_up("save_total_limit").title == "save_total_limit is called output.keep here"


@pytest.mark.parametrize(
    ("query", "hint"), [("learnig rate", "learning rate"), ("optim.learning_rat", "optim.learning_rate"), ("D99", "without a word")]
)
def test_what_is_unknown_gets_the_nearest(query: str, hint: str) -> None:
    with pytest.raises(HoneError) as caught:
        look_up(query)
    assert caught.value.code == "C003"
    assert hint in caught.value.fix


def test_an_unknown_code_names_its_family() -> None:
    with pytest.raises(HoneError) as caught:
        look_up("C999")
    assert "C001" in caught.value.fix


def test_schemas_in_words() -> None:
    assert kind({"type": "integer", "minimum": 1}, {}) == "integer >= 1"
    assert kind({"type": "array", "items": {"type": "string"}}, {}) == "list of (text)"
    assert kind({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, {}) == "true | false or none"
    whole = {"$defs": {"Source": {"type": "object", "properties": {"path": {}, "weight": {}}}}}
    assert kind({"$ref": "#/$defs/Source"}, whole) == "{path, weight}"


@pytest.mark.parametrize("query", ["LoRA", "C001", "optim", "online"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_pages_fit_a_narrow_terminal(query: str, lang: str) -> None:
    out = Console(width=60, force_terminal=True, no_color=True, record=True, highlight=False)
    show(out, look_up(query, lang))
    lines = out.export_text(styles=False).splitlines()
    assert len(lines) > 3
    assert max(map(cell_len, lines)) <= 60


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "learning", "rate"]) == 0
    assert glossary()["learning_rate"].en in capsys.readouterr().out.splitlines()


def test_without_a_word_it_lists_what_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    told = capsys.readouterr().out
    assert "perplexity" in told and "C001" in told and "optim.learning_rate" in told


def test_another_language_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "LoRA", "--lang", "fr"]) == 2
    assert "C001" in capsys.readouterr().err
