"""Files of every kind, folders, hub data sets and mixtures: what is read, what is refused, and how it is said."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hone.core.errors import HoneError
from hone.data.loaders import items, load, load_all
from hone.data.openfile import Limits, open_data
from hone.data.rows import Remark, Row
from hone.data.settings import Source
from tests.data.kit import fault, jsonl

ROWS = [{"question": "What is 1 + 1?", "answer": "2, of course"}, {"question": "你好吗？", "answer": 'Line one\nline "two"'}]


def columns(source: Path | str) -> list[dict[str, object]]:
    return [dict(row.columns) for row in load(str(source))]


def remarks(source: Path | str) -> list[str]:
    return [item.text for item in items(str(source)) if isinstance(item, Remark)]


def table(delimiter: str) -> str:
    cells = [["question", "answer"], *([row["question"], row["answer"].replace('"', '""')] for row in ROWS)]
    return "\r\n".join(delimiter.join(f'"{cell}"' for cell in line) for line in cells) + "\r\n"


def parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    made = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), made)
    path.write_bytes(gzip.compress(made.getvalue()) if path.suffix == ".gz" else made.getvalue())


WRITERS = {
    "rows.jsonl": lambda path: jsonl(path, ROWS),
    "rows.jsonl.gz": lambda path: jsonl(path, ROWS),
    "rows.ndjson": lambda path: jsonl(path, ROWS),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), "utf-8"),
    "rows.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "wrapped.json": lambda path: path.write_text(json.dumps({"data": ROWS}), "utf-8"),
    "lines.json": lambda path: jsonl(path, ROWS),
    "list.jsonl": lambda path: path.write_text(json.dumps(ROWS), "utf-8"),
    "rows.csv": lambda path: path.write_bytes(table(",").encode()),
    "excel.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + table(";").encode()),
    "rows.csv.gz": lambda path: path.write_bytes(gzip.compress(table(",").encode())),
    "rows.tsv": lambda path: path.write_bytes(table("\t").encode()),
    "rows.parquet": parquet,
    "rows.parquet.gz": parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_rows_come_out_of_every_kind_of_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    assert columns(path) == ROWS
    assert [row.origin.row for row in load(str(path))] == [1, 2]
    assert {row.origin.source for row in load(str(path))} == {str(path)}


def test_a_byte_order_mark_and_blank_lines_are_accepted_with_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "marked.jsonl"
    path.write_bytes(b'\xef\xbb\xbf\n{"text": "one"}\n\n{"text": "two"}\n')
    assert columns(path) == [{"text": "one"}, {"text": "two"}]
    assert remarks(path) == ["the byte order mark at its beginning is ignored", "2 blank lines passed over"]


def test_json_lines_in_a_file_called_json_are_accepted_with_a_remark(tmp_path: Path) -> None:
    assert remarks(jsonl(tmp_path / "rows.json", ROWS)) == ["it is called .json and holds JSON lines"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", b""), ("a.jsonl", b"\n \n"), ("a.json", b"[]"), ("a.csv", b"question,answer\n"), ("a.txt", b" \n")]
)
def test_a_source_without_a_row_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with fault("D002", where=name):
        columns(path)


def test_a_bad_row_stops_or_is_told_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": oops}\n{"text": "three"}\n')
    with fault("D001", where="a.jsonl:2:10"):
        columns(path)
    told: list[HoneError] = []
    assert [row.origin.row for row in load(str(path), skip_bad=True, on_bad=told.append)] == [1, 3]
    assert [error.code for error in told] == ["D001"]


def test_a_file_in_utf16_is_refused_and_read_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("question,answer\nhow,so\n".encode("utf-16"))
    with fault("D003", where="a.csv:1:1", what="UTF-16", fix="hone data fix"):
        columns(path)
    assert [item.columns for item in items(str(path), encoding="utf-16") if isinstance(item, Row)] == [{"question": "how", "answer": "so"}]


def test_a_packed_bomb_is_refused_while_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "' + b"x" * 40_000_000 + b'"}\n'))
    assert path.stat().st_size < 50_000
    with fault("D009", where="bomb.jsonl.gz", fix="unpack it yourself"):
        columns(path)


def test_unpacking_has_a_limit_whatever_the_ratio(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(os.urandom(200_000)))
    with fault("D009"), open_data(path, limits=Limits(unpacked=100_000)) as stream:
        stream.read()
    with open_data(path) as stream:
        assert len(stream.read()) == 200_000


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f'{{"text": "{i} {i * i}"}}\n' for i in range(5000)).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with fault("D015", where="cut.jsonl.gz"):
        columns(tmp_path / "cut.jsonl.gz")
    parquet(tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    with fault("D015", where="a.parquet"):
        columns(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("question,answer\none,two,three\n", "a.csv:2", "3 cells and the header has 2"),
        ('question,answer\n"a\nb",so\nonly\n', "a.csv:4", "1 cells"),
        ("question,question\none,two\n", "a.csv:1", "twice in the header"),
        ("question,,\none,two,three\n", "a.csv:1", "no name"),
        ('question,answer\none,"never closed\ntwo,three\n', "a.csv:3", "begins at line 2"),
    ],
)
def test_a_table_out_of_order_is_refused_with_its_line(text: str, where: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with fault("D016", where=where, what=what):
        columns(path)


def test_long_cells_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"question,answer\nwhy,{'x' * 500_000}\n")
    assert len(str(columns(path)[0]["answer"])) == 500_000


def test_text_is_cut_into_passages_of_whole_paragraphs_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i}. " + "Some words of it. " * (i % 40) for i in range(100)]
    path = tmp_path / "book.txt"
    path.write_bytes("\r\n\r\n".join(paragraphs).encode())
    passages = [str(row["text"]) for row in columns(path)]
    assert "\n\n".join(passages) == "\n\n".join(paragraphs).strip()
    assert len(passages) > 5
    assert all(len(passage) <= 4200 for passage in passages)


def test_text_without_blank_lines_is_cut_at_lines(tmp_path: Path) -> None:
    path = tmp_path / "poem.txt"
    path.write_text("\n".join(f"line {i} of a very long poem" for i in range(1000)))
    passages = [str(row["text"]) for row in columns(path)]
    assert len(passages) > 3
    assert "\n".join(passages) == path.read_text()


def test_a_text_file_that_holds_json_gets_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert "look like JSON" in remarks(path)[0]


def test_a_folder_is_read_in_the_order_of_names_and_notes_beside_tables_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    jsonl(tmp_path / "b.jsonl", [{"text": "b"}])
    jsonl(tmp_path / "a.jsonl.gz", [{"text": "a"}])
    jsonl(tmp_path / "sub" / "c.jsonl", [{"text": "c"}])
    jsonl(tmp_path / ".hidden.jsonl", [{"text": "hidden"}])
    (tmp_path / "LICENCE.txt").write_text("Anyone may read this.")
    assert [row["text"] for row in columns(tmp_path)] == ["a", "b", "c"]
    assert remarks(tmp_path) == ["1 other files passed over: LICENCE.txt"]


def test_a_folder_of_texts_is_read_and_one_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text("A tale.")
    assert columns(tmp_path / "texts") == [{"text": "A tale."}]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "photo.png").write_bytes(b"\x89PNG")
    with fault("D002", where="empty", fix="jsonl"):
        columns(tmp_path / "empty")


def test_a_link_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    jsonl(tmp_path / "secret.jsonl", [{"text": "secret"}])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with fault("S002", where="link.jsonl"):
        columns(tmp_path / "data")


@pytest.mark.parametrize("name", ["x" * 300 + ".jsonl", "nul\0.jsonl", "../../no/such/file.jsonl", "nothing here"])
def test_a_path_that_cannot_be_is_no_traceback(name: str) -> None:
    with fault("D014"):
        columns(name)


def test_a_misspelt_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", ROWS)
    with fault("D014", fix="did you mean 'train.jsonl'?"):
        columns(tmp_path / "trian.jsonl")


@pytest.mark.parametrize(("name", "content"), [("a.xlsx", b"PK\x03\x04"), ("a.jsonl", b"PK\x03\x04rest"), ("a.bin", b"\0\1")])
def test_kinds_that_are_not_read_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with fault("D014", where=name):
        columns(path)


@pytest.mark.parametrize(("weight", "counts"), [(0.5, {0: 50, 1: 50}), (1, {1: 100}), (2.0, {2: 100}), (2.25, {2: 75, 3: 25})])
def test_weights_draw_exact_shares_by_seed(weight: float, counts: dict[int, int], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": f"row {i}"} for i in range(100)])
    drawn = list(load_all([Source(path=str(path), weight=weight)], seed=1))
    assert Counter(one.copies for one in drawn) == counts
    assert [one.item.origin.row for one in drawn if isinstance(one.item, Row)] == list(range(1, 101))
    assert drawn == list(load_all([Source(path=str(path), weight=weight)], seed=1))
    if weight % 1:
        assert drawn != list(load_all([Source(path=str(path), weight=weight)], seed=2))


def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "many.jsonl",
        ({"instruction": f"Say {i}.", "input": "", "output": f"{i} it is, said the baker."} for i in range(100_000)),
    )
    start = time.process_time()
    assert sum(1 for _ in load(str(path))) == 100_000
    assert time.process_time() - start < 10


HUB = """
import sys
from hone.core.errors import HoneError
from hone.data.loaders import load
for source in sys.argv[1:]:
    try:
        print([dict(row.columns) for row in load(source)], next(load(source)).origin)
    except HoneError as error:
        print(error.code, bool(error.where and error.fix), error.what)
"""


@pytest.mark.parametrize(
    "source", ["", "  ", "rows.jsonl", "there/rows.jsonl", "there/rows", "nowhere/rows.jsonl", "./rows", "../nowhere/rows"]
)
def test_a_path_that_leads_nowhere_is_no_data_set_of_the_hub(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    jsonl(tmp_path / "there" / "row.jsonl", ROWS)
    with fault("D014", fix="did you mean 'row.jsonl'?" if source.startswith("there/") else ""):
        list(load(source))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS"),
        ("\n<!DOCTYPE html>\n<html><body>404</body></html>\n", "web page"),
    ],
)
def test_what_a_failed_download_leaves_is_recognised(content: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with fault("D015", where="rows.jsonl", what=what, fix="download"):
        columns(tmp_path / "rows.jsonl")


def test_data_sets_are_loaded_through_the_hub_library(tmp_path: Path) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    jsonl(tmp_path / "owner" / "name" / "train.jsonl", [{"question": "a", "answer": "b"}])
    jsonl(tmp_path / "owner" / "name" / "test.jsonl", [{"question": "c", "answer": "d"}])
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    sources = ["hub:owner/name", "hub:owner/name:test", "owner/name:test", "hub:owner/name:nothing", "nobody/nothing", "hub:a b"]
    done = subprocess.run([sys.executable, "-c", HUB, *sources], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    first, second, third, no_split, nobody, no_name = done.stdout.splitlines()
    assert first == "[{'question': 'a', 'answer': 'b'}] hub:owner/name:1"
    assert second == "[{'question': 'c', 'answer': 'd'}] hub:owner/name:test:1"
    assert third == "[{'question': 'c', 'answer': 'd'}] owner/name:test:1"
    assert no_split.startswith("D017 True")
    assert "nothing" in no_split
    assert nobody.startswith("D017 True the hub cannot be reached")
    assert no_name.startswith("D017 True 'hub:a b' is not the name of a data set")


def test_a_saved_data_set_is_read_with_the_names_of_its_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    made = datasets.Dataset.from_list([{"text": "fine", "label": 1}, {"text": "poor", "label": 0}], features=features)
    made.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": made, "test": made.select([0])}).save_to_disk(str(tmp_path / "both"))
    for folder in ("one", "both"):
        assert columns(tmp_path / folder) == [{"text": "fine", "label": "good"}, {"text": "poor", "label": "bad"}]
    assert remarks(tmp_path / "both") == ["split 'train' of train, test"]


def test_reading_rows_imports_no_torch() -> None:
    code = "import sys, hone.data.formats, hone.data.loaders, hone.data.checks, hone.data.split, hone.data.fix, hone.data.ledger, hone.data.settings;"
    code += "print([name for name in ('torch', 'transformers', 'datasets', 'pyarrow', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
