"""`hone chat FILE.gguf`: llama.cpp answers, streaming and remembering, and where it is missing that is said."""

from __future__ import annotations

import io
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from hone.cli.main import main
from hone.core.types import Message
from hone.demo import SEEDLING
from hone.export.gguf import llama_cpp
from hone.recipe.exporting import Wanted, export, open_source
from tests.export.kit import tune

with_llama_cpp = pytest.mark.skipif(not llama_cpp.installed(), reason="llama-cpp-python is not installed (docs/export.md says how)")
QUESTIONS = ["When does the ship leave?", "And who says so?"]


def empty(folder: Path, **metadata: str) -> Path:
    """A file with nothing in it but keys."""
    pairs = b"".join(
        struct.pack("<Q", len(key)) + key.encode() + struct.pack("<IQ", 8, len(value)) + value.encode() for key, value in metadata.items()
    )
    file = folder / "x.gguf"
    file.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(metadata)) + pairs)
    return file


def test_without_a_template_nobody_talks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(empty(tmp_path))]) == 3
    assert "T040" in capsys.readouterr().err


@pytest.mark.skipif(llama_cpp.installed(), reason="llama-cpp-python is installed")
def test_without_llama_cpp_the_line_that_installs_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = empty(tmp_path, **{"tokenizer.chat_template": "{{ messages[0].content }}", "tokenizer.ggml.model": "gpt2"})
    assert main(["chat", str(tmp_path)]) == main(["chat", str(file)]) == 4
    said = capsys.readouterr().err
    assert "F044" in said and "pip install 'hone-llm[llamacpp]'" in said


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned seedling as a GGUF file, with its certificate, in a folder; its adapter lies beside that."""
    place = tmp_path_factory.mktemp("talk")
    tune(SEEDLING, place / "run", rank=4)
    return export(open_source(str(place / "run" / "adapter")), Wanted(targets=("gguf",), out=place, quant="F32"))[0].path


def piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{question}\n" for question in QUESTIONS)))
    assert main(["chat", *words, "--max-new-tokens", "12"]) == 0
    said = capsys.readouterr()
    return said.out, said.err


@with_llama_cpp
def test_it_says_what_the_run_says(artifact: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    of_run, _ = piped(monkeypatch, capsys, str(artifact.parent / "run" / "adapter"))
    of_file, notes = piped(monkeypatch, capsys, str(artifact))
    assert of_file == of_run and of_file.strip()
    assert "length: 12 tokens" in notes
    both, _ = piped(monkeypatch, capsys, str(next(artifact.glob("*.gguf"))), "--compare")
    answers = of_run.splitlines()
    assert both.startswith("base> ") and f"tuned> {answers[0]}" in both and f"tuned> {answers[1]}" in both


@with_llama_cpp
def test_the_second_turn_reads_only_what_is_new_and_seeds_draw(artifact: Path) -> None:
    from hone.cli.talk import Speaker
    from hone.cli.writers import LlamaCpp, writer_of

    with ExitStack() as stack:
        writer = writer_of(str(artifact), stack)
        assert isinstance(writer, LlamaCpp)
        speaker, shown = Speaker("model", writer), list[str]()
        first = speaker.answer(QUESTIONS[0], shown.append, max_new_tokens=20)
        second = speaker.answer(QUESTIONS[1], shown.append, max_new_tokens=4)
        assert first is not None and second is not None
        assert len(shown) > 10 and "".join(shown) == first.answer.text + second.answer.text
        assert first.answer.recalled == 0
        assert second.answer.recalled >= len(writer.prompt([Message("user", QUESTIONS[0])]))
        prompt = writer.prompt([Message("user", QUESTIONS[0])])
        drawn = [writer.write(prompt, shown.append, max_new_tokens=12, temperature=1.5, seed=seed).tokens for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]


@with_llama_cpp
def test_an_answer_that_came_too_late_is_passed_over(artifact: Path) -> None:
    """What Ctrl-C leaves behind: a token that was asked for and never read."""
    from hone.export.gguf.session import Session

    with Session(next(artifact.glob("*.gguf")), context=128) as session:
        asked = session.tokens("When does the ship leave?")
        steps = [step.token for _, step in zip(range(3), session.write(asked), strict=False)]
        session._send([-1, "go on"])
        assert session.tokens("When does the ship leave?") == asked
        assert [step.token for _, step in zip(range(3), session.write(asked), strict=False)] == steps
