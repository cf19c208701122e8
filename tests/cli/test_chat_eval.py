"""`hone chat` and `hone eval` from the outside: what is printed, what is saved, and what a person is told."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hone.cli.main import main
from hone.core.types import Message
from hone.data.chat import ChatTemplate
from hone.eval.evaluate import Evaluation
from hone.models.load import load
from hone.recipe.settings import resolve
from hone.report.terminal import tame
from hone.rollout.sample import Sampler
from hone.tuning.lora import Lora, lora_layers

ROWS = [("When does the ship leave?", "At six."), ("Who said so?", "The baker."), ("Is it late?", "no"), ("Is it early?", "yes")] * 6


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any], tiny_tokenizer: Any) -> Path:
    """A random model with larger weights, so that its answers differ."""
    folder, model = tmp_path_factory.mktemp("models") / "base", tiny_llama(max_position_embeddings=128)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [{"question": f"{i}: {question}", "answer": answer} for i, (question, answer) in enumerate(ROWS)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def run(tmp_path: Path, base: Path, rows: Path) -> Path:
    """A finished run with an adapter that says other things than its base."""
    folder = tmp_path / "run"
    loaded = load(str(base), dtype="float32", device="cpu")
    tuning = Lora(rank=4)
    tuning.attach(loaded.model, seed=0)
    generator = torch.Generator().manual_seed(2)
    for layer in lora_layers(loaded.model).values():
        layer.b.data = 0.3 * torch.randn(layer.b.shape, generator=generator)
    (folder / "adapter").mkdir(parents=True)
    tuning.save(loaded.model, folder / "adapter", base=loaded.base)
    raw = {"model": {"name": str(base)}, "tuning": {"method": "lora", "rank": 4}, "data": {"train": str(rows), "held_out": 0.5}}
    resolved = resolve(raw | {"hardware": {"dtype": "float32", "device": "cpu"}}).resolved
    (folder / "resolved.json").write_text(json.dumps(resolved))
    return folder


def through_pipe(monkeypatch: pytest.MonkeyPatch, text: str, *arguments: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return main(["chat", *arguments])


def direct(folder: Path, *said: str) -> str:
    """The answer that a sampler gives to the last of some turns."""
    loaded = load(str(folder), dtype="float32", device="cpu")
    template = ChatTemplate.of(loaded.tokenizer)
    history = [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(said)]
    (answer,) = Sampler(loaded.model, loaded.tokenizer).generate(
        [template.prompt_ids(history)], max_new_tokens=12, stop_ids=template.stop_ids
    )
    return answer.text


def test_a_pipe_gets_the_answers_and_nothing_else(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status = through_pipe(monkeypatch, "When?\n\nAnd then?\n/quit\nnever asked\n", str(base), "--max-new-tokens", "12")
    printed = capsys.readouterr()
    first = direct(base, "When?")
    second = direct(base, "When?", first, "And then?")
    assert status == 0
    assert first != second
    assert printed.out == tame(f"{first}\n{second}\n")
    assert "\x1b" not in printed.out
    assert printed.err.count("length: 12 tokens") == 2
    assert "--max-new-tokens" in printed.err


def test_the_conversation_can_start_anew_and_be_saved(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "talk.jsonl"
    text = f"/save\nWhen?\n/reset\nWhen?\n/save {tmp_path}\nWho?\n/save {file}\n/nonsense\n"
    through_pipe(monkeypatch, text, str(base), "--max-new-tokens", "6", "--system", "Be brief.")
    printed = capsys.readouterr()
    first, again, _ = printed.out.splitlines()
    assert first == again
    assert "nothing has been said yet" in printed.err and f"not saved, {tmp_path}: Is a directory" in printed.err
    assert "/nonsense is not a command" in printed.err
    one, two = [json.loads(line) for line in file.read_text().splitlines()]
    assert [message["role"] for message in one["messages"]] == ["system", "user", "assistant"]
    assert [message["content"] for message in two["messages"]][:2] == ["Be brief.", "When?"]
    assert (len(two["messages"]), two["stop_reasons"]) == (5, ["length", "length"])


def test_a_saved_talk_is_data_that_can_be_read(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hone.data.reading import Reading

    file = tmp_path / "talk.jsonl"
    through_pipe(monkeypatch, f"When?\nWho?\n/save {file}\n", str(base), "--max-new-tokens", "6")
    (outcome,) = Reading().source(str(file))
    assert outcome.example is not None
    assert [message.role for message in outcome.example.conversations[0]] == ["user", "assistant"] * 2


def test_a_run_is_compared_with_its_base_and_written_down(
    run: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert through_pipe(monkeypatch, "When?\n", str(run), "--compare", "--max-new-tokens", "12") == 0
    said = direct(base, "When?")
    printed = capsys.readouterr().out
    assert printed.startswith(tame(f"base> {said}\ntuned> "))
    tuned = printed.removeprefix(tame(f"base> {said}\ntuned> ")).removesuffix("\n")
    assert tuned != tame(said)
    (file,) = (run / "chats").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    spoken = lines[1]["messages"][-1]["content"]
    assert tame(spoken) == tuned
    assert [(line["model"], line["messages"][-1]["content"]) for line in lines] == [("base", said), ("tuned", spoken)]


def test_foreign_bytes_in_a_pipe_are_no_reason_to_stop(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9?\n"), encoding="utf-8"))
    assert main(["chat", str(base), "--max-new-tokens", "1"]) == 0


def test_a_plain_model_has_no_base(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert through_pipe(monkeypatch, "When?\n", str(base), "--compare") == 2
    assert "C043" in capsys.readouterr().err


def test_a_talk_that_fills_the_context_says_so(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    through_pipe(monkeypatch, "ship " * 60 + "\n" + "ship " * 60 + "\n/reset\nWhen?\n", str(base), "--max-new-tokens", "100")
    printed = capsys.readouterr()
    assert "the model's context is full" in printed.err
    assert "this conversation fills the model's context" in printed.err
    assert printed.out.endswith("\n")


def test_the_same_seed_draws_the_same_answer(base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(seed: str) -> str:
        through_pipe(monkeypatch, "When?\n", str(base), "--max-new-tokens", "12", "--temperature", "1", "--seed", seed)
        return capsys.readouterr().out

    assert drawn("3") == drawn("3") != drawn("4")


def pairs(file: Path) -> list[tuple[str, str, str]]:
    """(last question, chosen, rejected) of each pair, as `hone train dpo` reads them."""
    from hone.data.reading import Reading

    examples = [outcome.example for outcome in Reading().source(str(file))]
    sides = [example.conversations for example in examples if example is not None]
    assert all(better[:-1] == worse[:-1] for better, worse in sides)
    return [(better[-2].content, better[-1].content, worse[-1].content) for better, worse in sides]


def test_an_answer_that_is_turned_down_is_drawn_again_and_the_better_one_kept(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "/up\nWhen?\n/up\n/down\n/down\n/up\nWho?\n/up\n"
    assert through_pipe(monkeypatch, text, str(base), "--max-new-tokens", "8") == 0
    printed = capsys.readouterr()
    assert "nothing has been said yet" in printed.err
    assert printed.err.count("no worse answer to compare it with") == 2
    assert "2 pairs in" in printed.err
    found = pairs(tmp_path / "preferences.jsonl")
    said = [direct_line for direct_line in printed.out.splitlines() if direct_line]
    assert len({chosen for _, chosen, _ in found}) == 1
    assert [question for question, _, _ in found] == ["When?", "When?"]
    assert tame(found[0][2]) in printed.out and len(said) >= 3
    assert len({answer for _, *both in found for answer in both}) == 3


def test_the_better_of_two_is_kept_and_both_go_on_from_it(
    run: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "When?\n/up\n/up nobody\n/up tuned\nWho?\n/down tuned\nWhere?\nWhy?\n/up base\n"
    assert through_pipe(monkeypatch, text, str(run), "--compare", "--max-new-tokens", "6") == 0
    printed = capsys.readouterr()
    assert printed.err.count("whose answer? /up base or /up tuned") == 2
    assert "gone different ways" in printed.err
    first, second = pairs(run / "preferences.jsonl")
    assert (first[0], first[2]) == ("When?", direct_of(base, "When?"))
    assert (second[0], second[1]) == ("Who?", direct_of(base, "When?", first[1], "Who?"))


def direct_of(folder: Path, *said: str) -> str:
    """The first six tokens of what `direct` gives, as text."""
    loaded = load(str(folder), dtype="float32", device="cpu")
    template = ChatTemplate.of(loaded.tokenizer)
    history = [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(said)]
    prompt = template.prompt_ids(history)
    return Sampler(loaded.model, loaded.tokenizer).generate([prompt], max_new_tokens=6, stop_ids=template.stop_ids)[0].text


def test_two_models_can_be_asked_side_by_side(
    run: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert through_pipe(monkeypatch, "When?\n", str(run), "--against", str(base), "--max-new-tokens", "12") == 0
    assert f"base> {tame(direct(base, 'When?'))}" in capsys.readouterr().out


def test_the_second_turn_reads_only_what_is_new(base: Path) -> None:
    from hone.cli.talk import Speaker
    from hone.cli.writers import Own
    from hone.recipe.opening import open_model

    speaker, question = Speaker("model", Own(open_model(base))), "When does the ship to the island leave, said the baker of the town?"
    first = speaker.answer(question, lambda piece: None, max_new_tokens=20)
    second = speaker.answer("And then?", lambda piece: None, max_new_tokens=4)
    assert first is not None and second is not None
    assert first.answer.recalled == 0
    assert second.answer.recalled >= len(speaker.writer.prompt([Message("user", question)]))


def on_terminal(command: list[str], typed: bytes, *, after: bytes) -> str:
    """What a program shows on a terminal of 100 columns when a person types as soon as they see `after`."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen, deadline = b"", time.monotonic() + 120
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.5)[0]:
                continue
            try:
                seen += os.read(ours, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if typed and after in seen:
                os.write(ours, typed)
                typed = b""
        process.kill()
    os.close(ours)
    return seen.decode()


def test_on_a_terminal_a_person_is_greeted_and_sees_both_columns(run: Path) -> None:
    program = [sys.executable, "-c", "from hone.cli.main import main; raise SystemExit(main())"]
    text = on_terminal([*program, "chat", str(run), "--compare", "--max-new-tokens", "5"], b"When?\n/quit\n", after=b"you> ")
    greeting, _, answers = text.partition("you> ")
    assert "/reset starts anew" in greeting
    heads = next(line for line in answers.splitlines() if "base" in line)
    assert heads.index("tuned") - heads.index("base") > 30
    assert "saved:" in answers


def test_a_run_is_measured_on_what_it_kept_aside(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(run), "--compare", "--max-new-tokens", "6", "--metric", "exact_match"]) == 0
    printed = capsys.readouterr().out
    assert "exact match" in printed
    assert "ended by themselves" in printed
    found = json.loads((run / "evaluation.json").read_text())
    task = next(line for line in found["tasks"] if line["metric"] == "exact_match")
    assert task["n"] == len(ROWS) / 2
    assert {"before", "after", "difference"} <= task.keys()
    loss = next(line for line in found["tasks"] if line["metric"] == "loss")
    assert loss["before"]["value"] != loss["after"]["value"]
    assert (run / "report.html").is_file()
    assert main(["eval", str(run), "--max-new-tokens", "2"]) == 0
    assert "keeps its comparison" in capsys.readouterr().out
    assert json.loads((run / "evaluation.json").read_text()) == found


def test_a_model_is_measured_on_a_file(base: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "answers.json"
    arguments = ["eval", str(base), f"data={rows}", "--limit", "5", "--max-new-tokens", "4", "--out", str(out)]
    assert main(arguments) == 0
    assert "bits per byte" in capsys.readouterr().out
    evaluation = Evaluation.of_json(json.loads(out.read_text()))
    assert len(evaluation.outcomes) == len(evaluation.likelihood) == 5
    assert main([*arguments[:3], "--limit", "0", "--max-new-tokens", "1", "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())["outcomes"]) == len(ROWS)
    assert main([*arguments[:3], "--out", str(tmp_path)]) == 4
    assert "F006" in capsys.readouterr().err, "before anything is asked"


@pytest.mark.parametrize(
    ("more", "code"), [([], "D060"), (["data=nowhere.jsonl"], "D014"), (["data={rows}", "--metric", "exactly"], "C003")]
)
def test_what_cannot_be_measured_is_said(base: Path, rows: Path, more: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(base), *(word.format(rows=rows) for word in more)]) in (2, 3)
    assert code in capsys.readouterr().err
