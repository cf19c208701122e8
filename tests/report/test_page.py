from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hone.report import card
from hone.report.folder import RunFolder, read_run
from hone.report.numbers import NO_BREAK
from hone.report.page import render, write_report

EVIL = "\"'></style></td><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}&lt;"
VOID = {"meta", "br", "img", "input", "link", "hr", "rect", "line", "circle", "polyline"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that everything that is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def poisoned(value: Any) -> Any:
    """The same document with every text, and every key that a person may choose, made hostile."""
    if isinstance(value, dict):
        return {key: item if key == "kind" else poisoned(item) for key, item in value.items()} | {EVIL: poisoned("x")}
    if isinstance(value, list):
        return [poisoned(item) for item in value]
    return EVIL + value if isinstance(value, str) else value


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", Reader(page).text.replace(NO_BREAK, " "))


def test_the_page_tells_the_whole_story(make_run: Callable[..., Path]) -> None:
    path = write_report(make_run())
    assert path.name == "report.html"
    text = text_of(path.read_text("utf-8"))
    for words in (
        "Right answers to unseen questions rose from 3.1 % to 89.4 %.",
        "93.8 %",
        "86.2 to 97.3 %",
        "+92.5 points",
        "It opens at 7:30.",
        "rope rope rope",
        "120 rows, small model",
        "Resumed at step 20",
        "CPU, 2 threads",
        "hone chat ",
        "held out",
    ):
        assert words in text, words


def test_the_page_needs_nothing_from_outside(make_run: Callable[..., Path]) -> None:
    page = write_report(make_run()).read_text("utf-8")
    reader = Reader(page)
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "form"}
    assert not {name for name, _ in reader.attributes} & {"src", "href", "srcset", "action"}
    assert not re.search(r"@import|url\((?!#clip-)", page)
    assert ("name", "viewport") in reader.attributes
    assert "prefers-color-scheme: dark" in page and "max-width: 760px" in page
    assert len(page) < 400_000


def test_hostile_content_stays_text(make_run: Callable[..., Path]) -> None:
    clean = make_run("clean")
    folder = make_run("hostile")
    tags = Reader(render(read_run(clean))).tags
    for name in ("resolved.json", "evaluation.json", "ledger.json"):
        (folder / name).write_text(json.dumps(poisoned(json.loads((clean / name).read_text("utf-8")))), "utf-8")
    events = [poisoned(json.loads(line)) for line in (clean / "events.jsonl").read_text("utf-8").splitlines()]
    events += [{"t": 9999.0, "kind": EVIL, "what": EVIL}, {"t": 9999.0, "kind": "warning", "what": EVIL}]
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
    reader = Reader(render(read_run(folder)))
    assert "script" not in reader.tags and reader.tags <= tags | {"details", "summary"}
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert all(re.fullmatch(r"flex-grow: \d+", value) for name, value in reader.attributes if name == "style")
    assert EVIL in reader.text and "49" not in re.findall(r"onerror=alert\(2\)>(..)", reader.text)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("resolved.json", "the settings are not known"),
        ("metrics.jsonl", "No step has been logged yet."),
        ("events.jsonl", "No diary (events.jsonl) is in this folder."),
        ("ledger.json", "the fate of the rows is not known"),
        ("evaluation.json", "No before/after measurement is in this folder."),
    ],
)
def test_a_missing_file_becomes_an_honest_line(make_run: Callable[..., Path], file: str, words: str) -> None:
    text = text_of(render(read_run(make_run(**{file.replace(".", "__"): None}))))
    assert words in text and (f"{file} is missing" in text) == (file != "evaluation.json")


def test_an_empty_folder_still_makes_a_page(tmp_path: Path) -> None:
    assert "Nothing has been measured yet." in text_of(write_report(tmp_path).read_text("utf-8"))


def test_texts_that_utf8_cannot_hold_do_not_stop_the_report(make_run: Callable[..., Path]) -> None:
    folder = make_run(evaluation__json='{"samples": [{"task": "t", "prompt": "\\ud800?", "after": "\\u0000 ok"}]}')
    assert "ok" in write_report(folder).read_text("utf-8")


def test_the_same_run_gives_the_same_bytes(make_run: Callable[..., Path]) -> None:
    folder = make_run()
    code = "import sys; from hone.report.page import write_report; write_report(sys.argv[1])"
    pages = set()
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=os.environ | {"PYTHONHASHSEED": seed})
        pages.add((folder / "report.html").read_bytes())
    assert len(pages) == 1


def test_long_runs_stay_small(make_run: Callable[..., Path]) -> None:
    lines = "".join(json.dumps({"step": s, "loss": 3 / s, "grad_norm": 1.0, "learning_rate": 1e-4}) + "\n" for s in range(1, 20_001))
    assert len(render(read_run(make_run(metrics__jsonl=lines)))) < 400_000


def test_only_verbs_that_exist_are_recommended(make_run: Callable[..., Path]) -> None:
    run = read_run(make_run())
    assert "hone export" in render(run) and "hone export" not in render(run, verbs=["chat"])


WORDS = """model tuning data objective reasons tasks samples stopped task metric n before after value low high prompt expected t kind step
loss eval_loss started resumed environment rows total sources name method rank answer command license trained dropped truncated masked
held_out tokens source cut sha256 trainable parameters what best_step"""
KEYS = re.findall(r"\w+", WORDS)
LEAVES = [
    None,
    True,
    False,
    0,
    -1,
    10**18,
    10**400,
    0.5,
    1e308,
    -1e308,
    1e-320,
    -2.5,
    float("nan"),
    float("inf"),
    "",
    "text",
    "exact_match",
    "loss",
    *KEYS,
]


def anything(chance: random.Random, depth: int = 4) -> Any:
    """A JSON value of any shape, made of the words that the files use."""
    kind = chance.random() if depth else 1.0
    if kind < 0.4:
        return {chance.choice(KEYS): anything(chance, depth - 1) for _ in range(chance.randrange(6))}
    if kind < 0.6:
        return [anything(chance, depth - 1) for _ in range(chance.randrange(4))]
    return chance.choice(LEAVES)


def test_no_shape_of_the_files_crashes_the_page_or_the_card() -> None:
    for seed in range(80):
        chance = random.Random(seed)
        resolved, ledger, evaluation, *events = ({key: anything(chance) for key in chance.sample(KEYS, 12)} for _ in range(6))
        steps = tuple({"loss": None, **{key: anything(chance) for key in KEYS[-30:]}, "step": step} for step in range(1, 4))
        run = RunFolder(Path("run"), resolved, steps, steps, tuple(events), ledger, evaluation)
        Reader(render(run))
        assert card.render(run).startswith("---\n"), seed


def test_the_room_never_loads_torch() -> None:
    code = (
        "import sys; from hone.report import card, page, progress, tables, trackers; "
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'too heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
