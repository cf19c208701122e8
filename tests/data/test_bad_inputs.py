"""Bad inputs through the real command line: each is told with its code and its place, none ends in a traceback."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hone.cli.main import main
from hone.core.errors import catalogue
from tests.conftest import VOCABULARY
from tests.data.kit import asked, chat
from tests.models.tiny_models import edit_json, edit_weights

GOOD = asked(30)
ONE = b'{"question": "How?", "answer": "So."}\n'
NAN = float("nan")


class Case(NamedTuple):
    """Data (bytes of a file, or rows), settings beside it, the code that must be told, and words that must stand with it."""

    id: str
    data: Any
    code: str
    said: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    name: str = "rows.jsonl"


REFUSED = (
    Case("B1 malformed", ONE + b'{"question": "How?",, "answer": "So."}\n', "D001", ("rows.jsonl:2:21", "^", "data.skip_bad=true")),
    Case("B2 empty", b"", "D002", ("rows.jsonl",)),
    Case("B2 only a header", b"question,answer\n", "D002", name="rows.csv"),
    Case("B3 not utf-8", ONE + '{"question": "Café?", "answer": "So."}\n'.encode("cp1252"), "D003", ("rows.jsonl:2:18", "cp1252")),
    Case("B5 deep", b'{"text": ' + b"[" * 3000 + b"]" * 3000 + b"}\n", "D004", ("64 deep",)),
    Case("B6 mixed kinds", [*GOOD, {"question": "How?", "answer": ["so", 1]}], "D005", ("rows.jsonl:31", "answer")),
    Case("B7 a name twice", b'{"question": "How?", "answer": "So.", "answer": "No."}\n', "D006", ('"answer" stands twice',)),
    Case("B8 no number", b'{"question": "How?", "answer": NaN}\n', "D007", ("NaN",)),
    Case("B9 huge", ONE + b'{"text": "' + b"x" * 33 * 2**20 + b'"}\n', "D008", ("rows.jsonl:2", "larger than 33.6 MB")),
    Case("B10 bomb", gzip.compress(b'{"text": "' + b"x" * 40_000_000 + b'"}\n'), "D009", ("unpacked to more than",), name="rows.jsonl.gz"),
    Case("B11 unknown columns", [{"qestion": "How?", "asnwer": 7}], "D010", ("qestion", "question")),
    Case("B15 no messages", [{"messages": []}], "D020"),
    Case("B16 nobody answers", [{"messages": chat("Hi")}], "D021"),
    Case("B18 null", [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}]}], "D022"),
    Case("B19 a number", [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": 7}]}], "D023"),
    Case("B20 a role", [{"messages": [{"role": "usr", "content": "Hi"}]}], "D024", ("'usr'", "did you mean 'user'")),
    Case("B23 empty answer", [{"question": "How?", "answer": ""}], "D027"),
    Case("B24 no room", asked(3), "D028", ("data.max_length=35 would keep",), ("data.max_length=8",)),
    Case("B25 all masked", [{"messages": [*chat("Hi"), {"role": "assistant", "content": "Oh", "weight": 0}]}], "D029", ("user: Hi",)),
    Case("B47 a path", [{"messages": chat("See", "I do."), "images": ["../../etc/passwd"]}], "S001", ("../../etc/passwd",)),
    Case("B47 an address", [{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}], "S001", ("opens no path or address",)),
)
LEFT_OUT = (
    Case("B15", {"question": None, "messages": []}, "D020"),
    Case("B16", {"messages": chat("Hi")}, "D021"),
    Case("B23", {"messages": chat("Hi", " ")}, "D027"),
    Case("B24", {"messages": chat("word " * 30, "Oh")}, "D028", ("data.max_length=",), ("data.max_length=100",)),
    Case("B25", {"messages": [*chat("Hi"), {"role": "assistant", "content": "Oh", "weight": 0}]}, "D029"),
)
TOLD = (
    Case("B4 mark and blank lines", b"\xef\xbb\xbf" + ONE + b"\n\n" + ONE, "D039", ("2 blank lines",)),
    Case("B12 alpaca", [{"instruction": f"Add {i}.", "output": "x"} for i in range(20)], "", ("alpaca: instruction -> user",)),
    Case("B13 sharegpt", [{"conversations": [{"from": "human", "value": f"{i}"}, {"from": "gpt", "value": "x"}]} for i in range(20)], "",
         ("sharegpt: conversations -> conversation",)),
    Case("B14 openai preference",
         [{"input": {"messages": chat(f"{i}")}, "preferred_output": chat("", "a")[1:], "non_preferred_output": chat("", "b")[1:]} for i in range(20)],
         "", ("openai_preference", "preferred_output -> the better answer")),
    Case("B21 assistant first", [{"messages": [*chat("", f"{i}")[1:], *chat("Hi", "Oh")]} for i in range(20)], "D025", ("speaks first (20 rows",)),
    Case("B21 two users", [{"messages": [*chat(f"{i}"), *chat("Hi", "Oh")]} for i in range(20)], "D025", ("joined",)),
    Case("B22 a tail", [{"messages": chat(f"{i}", "Oh", "And?")} for i in range(20)], "D026", ("tail was cut off (20 rows",)),
    Case("B33 past the context", GOOD, "M002", ("the model takes 256 tokens at most",), ("data.max_length=4096",)),
    Case("B38 a rate as YAML reads it", GOOD, "", (), ("optim.learning_rate=2e-4",)),
)  # fmt: skip
SETTINGS = (
    ("B35 targets", "M004", "q_proj", "tuning.targets=[qproj]"),
    ("B35 rank", "C001", "tuning", "tuning.rank=0"),
    ("B38 inf", "C001", "optim.learning_rate", "optim.learning_rate=.inf"),
    ("B38 nan", "C001", "optim.learning_rate", "optim.learning_rate=nan"),
    ("B38 huge", "C001", "optim.learning_rate", "optim.learning_rate=1e6"),
    ("B38 negative", "C001", "optim.learning_rate", "optim.learning_rate=-1"),
    ("B39 batch", "C001", "optim.batch_size", "optim.batch_size=0"),
    ("B39 contradiction", "C004", "contradict", "optim.epochs=1 optim.max_steps=10"),
    ("B39 unknown", "C002", "did you mean 'epochs'", "optim.epoch=1"),
    ("B28 no such template", "T003", "did you mean 'chatml'", "data.template=chatmll"),
)
TEMPLATES = (
    ("B26 no end", "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", "T001", "never learn to stop"),
    ("B28 syntax", "{% for m in messages %}{{ m.content }}", "T003", "line 1"),
    ("B29 a bomb", "{{ 'x' * 10**9 }}{% for m in messages %}{{ m.content }}{% endfor %}", "T004", "stopped"),
    ("B29 into Python", "{{ messages.__class__.__mro__ }}", "T004", "unsafe"),
    ("B31 two starts", "{{ bos_token * 2 }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}", "T006", "twice"),
)
Q = "model.layers.0.self_attn.q_proj.weight"


def _drop(tensors: dict[str, Any]) -> None:
    del tensors[Q]


def _poison(tensors: dict[str, Any]) -> None:
    tensors[Q][0, 0] = NAN


def _add(tensors: dict[str, Any]) -> None:
    tensors["model.extra.weight"] = tensors[Q].clone()


def _quantised(folder: Path) -> None:
    edit_json(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def _encoder(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="bert", architectures=["BertForMaskedLM"])


def _gguf(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.q4.gguf").write_bytes(b"GGUF")


MODELS: tuple[tuple[str, Callable[[Path], None], str, str], ...] = (
    ("B36 missing", lambda folder: edit_weights(folder, _drop), "M005", Q),
    ("B36 NaN", lambda folder: edit_weights(folder, _poison), "M005", Q),
    ("B36 unexpected", lambda folder: edit_weights(folder, _add), "M005", "model.extra.weight"),
    ("B37 quantised", _quantised, "M006", "already quantised"),
    ("B37 encoder", _encoder, "M006", "left to right"),
    ("B37 gguf", _gguf, "M006", "gguf"),
)


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


class Told(NamedTuple):
    """How a command ended, and all that it said."""

    status: int
    text: str


Train = Callable[..., Told]


@pytest.fixture
def train(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Train:
    """`train(data, *words)` is `hone train sft --dry-run` on the tiny model, or on the one that the words name."""

    def run(data: Path, *words: str) -> Told:
        fixed = {"model": model, "data": data, "output": tmp_path / "run", "hardware.dtype": "float32"}
        given = {word.partition("=")[0] for word in words}
        status = main(["train", "sft", "--dry-run", *(f"{key}={value}" for key, value in fixed.items() if key not in given), *words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        assert "fault of its own" not in captured.err, captured.err
        return Told(status, captured.out + captured.err)

    return run


def write(folder: Path, data: Any, name: str = "rows.jsonl") -> Path:
    rows: Iterable[Any] = data if isinstance(data, list) else [data]
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode())
    return file


def refused(told: Told, code: str, *said: str) -> None:
    """The command ended with the fault's own status, named its code, and told how to mend it."""
    assert told.status == {"C": 2, "M": 2}.get(code[0], 3), told.text
    assert code in catalogue()
    assert all(word in told.text for word in (f"{code}  ", "fix", f"hone explain {code}", *said)), told.text


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_data_that_cannot_be_used_is_refused_with_its_place(case: Case, train: Train, tmp_path: Path) -> None:
    refused(train(write(tmp_path, case.data, case.name), *case.words), case.code, *case.said)


@pytest.mark.parametrize("case", LEFT_OUT, ids=lambda case: case.id)
def test_a_row_without_anything_to_learn_is_left_out_and_counted(case: Case, train: Train, tmp_path: Path) -> None:
    rows = [*({"messages": chat(f"What follows {i}?", f"{i + 1}")} for i in range(30)), case.data]
    told = train(write(tmp_path, rows), *case.words)
    assert told.status == 0, told.text
    assert f"{case.code}: left out" in told.text and "(1 row, first" in told.text and "rows.jsonl:31" in told.text
    assert all(word in told.text for word in case.said)


@pytest.mark.parametrize("case", [case for case in REFUSED if case.code in ("D001", "D003", "D005", "D006", "D007", "D024", "S001")])
def test_skip_bad_leaves_out_and_counts_what_would_stop(case: Case, train: Train, tmp_path: Path) -> None:
    bad = case.data if isinstance(case.data, bytes) else json.dumps(case.data[-1]).encode() + b"\n"
    good = [{"messages": chat(f"What follows {i}?", f"{i + 1}")} if b"messages" in bad else row for i, row in enumerate(GOOD)]
    file = write(tmp_path, good)
    file.write_bytes(file.read_bytes() + bad.splitlines()[-1] + b"\n")
    refused(train(file), case.code)
    told = train(file, "--skip-bad")
    assert told.status == 0, told.text
    assert f"{case.code}: left out" in told.text and "(1 row, first" in told.text


@pytest.mark.parametrize("case", TOLD, ids=lambda case: case.id)
def test_what_has_one_meaning_is_used_and_told(case: Case, train: Train, tmp_path: Path) -> None:
    told = train(write(tmp_path, case.data, case.name), *case.words)
    assert told.status == 0, told.text
    assert all(word in told.text for word in (case.code, *case.said)), told.text


@pytest.mark.parametrize(("id", "code", "said", "words"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_settings_that_cannot_be_meant_are_refused(id: str, code: str, said: str, words: str, train: Train, tmp_path: Path) -> None:
    refused(train(write(tmp_path, GOOD), *words.split()), code, said)


@pytest.mark.parametrize(("id", "source", "code", "said"), TEMPLATES, ids=[row[0] for row in TEMPLATES])
def test_templates_that_cannot_be_trained_with(
    id: str, source: str, code: str, said: str, train: Train, model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    edit_json(folder / "tokenizer_config.json", bos_token="<|endoftext|>")
    (folder / "chat_template.jinja").write_text(source)
    refused(train(write(tmp_path, GOOD), f"model={folder}"), code, said)


@pytest.mark.parametrize(("id", "damage", "code", "said"), MODELS, ids=[row[0] for row in MODELS])
def test_models_that_cannot_be_trained(
    id: str, damage: Callable[[Path], None], code: str, said: str, train: Train, model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    damage(folder)
    refused(train(write(tmp_path, GOOD), f"model={folder}"), code, said)


def test_b27_an_end_that_is_also_padding_is_learned_and_told(train: Train, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    edit_json(folder / "tokenizer_config.json", pad_token="<|im_end|>")
    told = train(write(tmp_path, GOOD), f"model={folder}")
    assert told.status == 0 and "T002" in told.text
    assert "⟦It is 1.<|im_end|>⟧" in told.text


def test_b30_a_control_token_in_the_data_stays_text(train: Train, tmp_path: Path) -> None:
    told = train(write(tmp_path, [{"question": f"{i} <|im_end|>?", "answer": "No <|im_end|>!"} for i in range(20)]), "data.held_out=0")
    assert told.status == 0
    assert "⟦No <|im_end|>!<|im_end|>⟧" in told.text, "one learned stretch: the first mark is text, only the second one ends"


def test_b32_ids_beyond_the_embedding_name_both_sizes(train: Train, model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([f"<|{i}|>" for i in range(VOCABULARY)])
    tokenizer.save_pretrained(folder)
    refused(train(write(tmp_path, GOOD), f"model={folder}"), "M001", "384 embedding rows", "ids up to 383")


def test_b45_prompts_on_both_sides_are_told(train: Train, tmp_path: Path) -> None:
    aside = write(tmp_path, [{"question": "what is the number  AFTER 3", "answer": "Four"}, *asked(1, answer="x")], "aside.jsonl")
    told = train(write(tmp_path, GOOD), f"data.held_out={aside}")
    assert told.status == 0
    assert "D030" in told.text and "(2 rows, first" in told.text
