"""`hone data` from the outside: check, stats, show, split and fix, as a person sees them."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hone.cli.main import main
from hone.data.loaders import load
from tests.data.kit import asked, chat, jsonl
from tests.recipe.conftest import WORDS

Say = Callable[..., tuple[int, str]]


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]) -> Say:
    """`data(words)` is `hone data words`: the exit status, and all that was said."""

    def run(*words: object) -> tuple[int, str]:
        status = main(["data", *map(str, words)])
        said = capsys.readouterr()
        assert "fault of its own" not in said.err, said.err
        return status, said.out + said.err

    return run


def rows(file: Path) -> list[dict[str, Any]]:
    return [dict(row.columns) for row in load(str(file))]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Good rows, a doubled one, and one of each of six faults and oddities."""
    odd = [
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null}]}',
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}',
        '{"messages": [{"role": "user", "content": "Hi"}]}',
        '{"messages": [{"role": "user", "content": "Hi"}, {"role": "usr", "content": "Hi"}]}',
        '{"messages": oops}',
        json.dumps({"messages": chat("Tail?", "Yes.", "And?")}),
    ]
    good = [json.dumps({"messages": chat(f"What comes after {i}?", f"It is {i + 1}.")}) for i in range(20)]
    (tmp_path / "mixed.jsonl").write_text("\n".join([*good, good[0], *odd]) + "\n")
    return tmp_path / "mixed.jsonl"


def test_check_names_every_bad_row_and_tells_what_is_odd(data: Say, mixed: Path) -> None:
    status, said = data("check", mixed)
    assert status == 1
    for code, place in {"D022": "22", "D027": "23", "D021": "24", "D024": "25", "D001": "26"}.items():
        assert f"{code} " in said and f"1 row (row {place})" in said
    assert "D026" in said and "tail was cut off" in said
    assert "D035" in said and "1 row (row 21)" in said
    assert "5 of 27 rows cannot be learned from" in said
    assert data("check", jsonl(mixed.with_name("good.jsonl"), asked(20)))[0] == 0


def test_check_finds_what_stands_on_both_sides_exactly_and_nearly(data: Say, tmp_path: Path) -> None:
    rng = random.Random(0)
    said = [" ".join(rng.choices(WORDS, k=30)) for _ in range(40)]
    train = jsonl(tmp_path / "train.jsonl", [{"question": f"{i} {text}?", "answer": "yes"} for i, text in enumerate(said)])
    aside = [{"question": f"3  {said[3].upper()}", "answer": "no"}, {"question": f"7 {said[7]} indeed?", "answer": "yes"}, asked(1)[0]]
    held_out = jsonl(tmp_path / "held_out.jsonl", aside)
    found = data("check", train, "--held-out", held_out)[1]
    assert "D030" in found and "1 (row there = row here: 1 = 4)" in found
    assert "nearly the same as a row of the held-out file: 1 (2 and 8)" in found


def test_check_counts_what_a_model_cannot_take(data: Say, tmp_path: Path, model_folder: Path) -> None:
    file = jsonl(
        tmp_path / "rows.jsonl", [*asked(12), {"question": "word " * 300, "answer": "Oh"}, {"question": "Why?", "answer": "so " * 300}]
    )
    status, said = data("check", file, "--model", model_folder, "--max-length", 128)
    assert status == 1 and "D028" in said and "1 row (row 13)" in said
    assert "longer than the limit: 2 rows (rows 13, 14)" in said
    status, said = data("stats", file, "--model", model_folder, "--max-length", 128)
    assert status == 0 and "learned tokens" in said and "have more than 128 tokens" in said


def test_stats_count_lengths_labels_and_what_is_there_twice(data: Say, tmp_path: Path) -> None:
    labels = [{"text": f"{WORDS[i % 10]} {WORDS[i % 7]} {i}", "label": "good" if i % 11 else "bad"} for i in range(200)]
    status, said = data("stats", jsonl(tmp_path / "rows.jsonl", [*labels, labels[0]]))
    assert status == 0 and all(word in said for word in ("p50", "p95", "p99", "characters", "words"))
    assert "201 of 201 rows" in said and "1 row exactly (row 201)" in said
    assert "good 181" in said and "bad 20" in said


def test_stats_of_nearly_the_same_rows(data: Say, tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=30)) for _ in range(20)]
    file = jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in [*texts, f"{texts[4]} apple"]])
    assert "1 row (21 and 5)" in data("stats", file, "--near")[1]
    assert "nearly same" not in data("stats", file)[1]


def test_show_tells_the_fate_of_any_row(data: Say, mixed: Path, model_folder: Path) -> None:
    good = data("show", mixed, "--row", 2)[1]
    assert "What comes after 1?" in good and "assistant (learned)" in good and "name a --model" in good
    told = data("show", mixed, "--row", 2, "--model", model_folder)[1]
    assert "⟦It is 2.<|im_end|>⟧" in told and "trained" in told
    assert "the run stops, unless data.skip_bad is set: D022" in data("show", mixed, "--row", 22)[1]
    assert "left out and counted: D027" in data("show", mixed, "--row", 23)[1]
    assert "D026" in data("show", mixed, "--row", 27)[1]
    status, said = data("show", mixed, "--row", 99)
    assert status == 3 and "D040" in said and "the last one is 27" in said


def test_show_tells_what_became_of_a_row_in_a_run(data: Say, mixed: Path, model_folder: Path, tmp_path: Path) -> None:
    words = [f"model={model_folder}", f"data={mixed}", f"output={tmp_path / 'run'}", "optim.max_steps=1", "hardware.dtype=float32"]
    assert main(["train", "sft", "--skip-bad", "eval.keep_best=false", "data.held_out=0.2", *words]) == 0
    said = [data("show", mixed, "--row", row, "--run", tmp_path / "run") for row in (1, 23, 26)]
    assert [status for status, _ in said] == [0, 0, 0]
    fates = {
        data("show", mixed, "--row", row, "--run", tmp_path / "run")[1].partition("fate")[2].split()[0].rstrip(":") for row in range(1, 21)
    }
    assert fates == {"trained", "held"}
    assert "D027" in said[1][1] and "D001" in said[2][1]
    status, told = data("show", mixed, "--row", 1, "--run", tmp_path)
    assert status == 4 and "F061" in told
    status, told = data("show", jsonl(tmp_path / "other.jsonl", asked(3)), "--row", 1, "--run", tmp_path / "run")
    assert status == 3 and "D040" in told


def test_split_keeps_prompts_apart_and_counts_what_it_leaves_out(data: Say, mixed: Path) -> None:
    status, said = data("split", mixed)
    assert status == 0
    train, aside = mixed.with_name("mixed.train.jsonl"), mixed.with_name("mixed.held_out.jsonl")
    assert len(rows(train)) + len(rows(aside)) == 22 and len(rows(aside)) == 4
    assert not {json.dumps(row) for row in rows(train)} & {json.dumps(row) for row in rows(aside)}
    record = json.loads(mixed.with_name("mixed.split.json").read_text())
    assert record["left_out"] == dict.fromkeys(("D022", "D027", "D021", "D024", "D001"), 1), "those that cannot be read as well"
    assert record["hash"][:16] in said and record["held_out"]["rows"] == 4
    assert data("split", mixed)[0] == 0, "the same again changes nothing"
    status, said = data("split", mixed, "--seed", 3)
    assert status == 3 and "D037" in said
    (mixed.parent / "folder").mkdir()
    jsonl(mixed.parent / "folder" / "a.jsonl", asked(10))
    assert data("split", mixed.parent / "folder" / ".." / "folder")[0] == 0


def test_fix_writes_a_copy_that_holds_no_faults_and_says_what_it_did(data: Say, mixed: Path) -> None:
    before = mixed.read_bytes()
    status, said = data("fix", mixed)
    fixed = mixed.with_name("mixed.fixed.jsonl")
    assert status == 0 and "21 of 27 rows" in said and mixed.read_bytes() == before
    for told in ("dropped: D001", "dropped: D022", "dropped: the same as an earlier row", "D026: the last turn is not an answer"):
        assert told in said
    assert data("check", fixed)[0] == 0 and len(rows(fixed)) == 21
    assert rows(fixed)[-1]["messages"] == chat("Tail?", "Yes.")
    fixed.write_text("mine\n")
    assert "D037" in data("fix", mixed)[1] and fixed.read_text() == "mine\n"


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-8-sig", "cp1252"])
def test_fix_converts_other_encodings(encoding: str, data: Say, tmp_path: Path) -> None:
    text = "你好吗,我很好" if encoding != "cp1252" else "Où est le café,Là-bas"
    (tmp_path / "a.csv").write_bytes(("question,answer\n" + f"{text}\n" * 3).encode(encoding))
    said = data("fix", tmp_path / "a.csv")[1]
    assert ("byte order mark removed" if encoding == "utf-8-sig" else f"converted from {encoding} to UTF-8") in said
    question, answer = text.split(",")
    assert rows(tmp_path / "a.fixed.jsonl") == [{"messages": chat(question, answer)}]


def test_fix_and_split_take_tables_with_holes(data: Say, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    made, holes = io.BytesIO(), [float("nan"), *map(float, range(9))]
    table = pyarrow.table({"question": [f"{i} and {i}?" for i in range(10)], "answer": [str(i) for i in range(10)], "score": holes})
    parquet.write_table(table, made)
    (tmp_path / "a.parquet").write_bytes(made.getvalue())
    said = data("fix", tmp_path / "a.parquet")[1]
    assert "10 of 10 rows" in said and "converted" not in said
    assert rows(tmp_path / "a.fixed.jsonl")[0]["score"] is None
    assert data("split", tmp_path / "a.parquet", "--held-out", 0.5)[0] == 0
    assert len(rows(tmp_path / "a.train.jsonl")) == 5


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"prompt": "Hi", "chosen": f"a{i}", "rejected": "b"} for i in range(3)], {"prompt", "chosen", "rejected"}),
        ([{"prompt": "Hi", "completion": f"a{i}", "label": True} for i in range(3)], {"messages", "label"}),
        ([{"text": f"Once {i}."} for i in range(3)], {"text"}),
    ],
)
def test_fix_keeps_what_kind_of_data_it_is(rows: list[dict[str, Any]], columns: set[str], data: Say, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl.gz", rows)
    assert data("fix", file)[0] == 0
    fixed = [json.loads(line) for line in (tmp_path / "a.fixed.jsonl").read_text().splitlines()]
    assert len(fixed) == 3 and all(set(row) == columns for row in fixed)
    assert gzip.decompress(file.read_bytes())


def test_what_cannot_be_meant_is_told(data: Say, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [{"ask": f"{i}?", "reply_to_it": "Yes."} for i in range(5)])
    for words, code in {("--column", "prompt"): "C005", ("--column", "prompt=nope"): "D011", ("--format", "alpacca"): "C003"}.items():
        assert code in data("check", file, *words)[1]
    assert data("check", file, "--column", "prompt=ask", "--column", "completion=reply_to_it")[0] == 0
    assert "D014" in data("check", tmp_path / "b.jsonl")[1] and "did you mean 'a.jsonl'?" in data("check", tmp_path / "b.jsonl")[1]
    (tmp_path / "a.fixed.jsonl").mkdir()
    assert "D037" in data("fix", file, "--column", "prompt=ask", "--column", "completion=reply_to_it")[1]
