"""`hone chat`: talk with a run or a model in the terminal, or through a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hone.cli.style import console
from hone.cli.thumbs import Thumbs
from hone.report.terminal import tame

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from hone.cli.talk import Speaker, Transcript, Turn
    from hone.cli.writers import Writer

COMMANDS = "/reset starts anew, /save [FILE] writes the transcript, /up and /down judge the last answer, /quit ends"
FULL = "this conversation fills the model's context: /reset starts anew"
BASE, TUNED = "base", "tuned"
AGAIN = 0.8
"""Least temperature of another answer to a question: the likeliest one has been turned down."""


def command(
    model: Annotated[str, typer.Argument(help="Run folder, adapter, model folder, GGUF file or hub id.")],
    compare: Annotated[bool, typer.Option("--compare", help="Ask the base as well, and show both answers.")] = False,
    against: Annotated[str | None, typer.Option(help="Ask this run, model or GGUF file as well, and show both answers.")] = None,
    system: Annotated[str | None, typer.Option(help="System prompt. Without it, that of the run's data.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 512,
    temperature: Annotated[
        float, typer.Option(min=0, help="0 takes the likeliest token each time, 1 draws from the model's distribution.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="For a temperature above 0: the same seed gives the same answers.")] = 0,
) -> None:
    """Talk with a model. Each line is a question; in a pipe only the answers are printed."""
    from hone.cli.talk import Speaker, Transcript
    from hone.cli.writers import base_writer, writer_of

    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    with ExitStack() as stack:
        writer = writer_of(model, stack)
        wanted = system if system is not None else writer.system
        speakers = [Speaker(TUNED if compare else "model", writer, wanted)]
        if compare:
            speakers.insert(0, Speaker(BASE, base_writer(writer), wanted))
        if against is not None:
            speakers = [*speakers, Speaker(Path(against).name, writer_of(against, stack), wanted)]
            speakers[-2].name = TUNED if compare else Path(model).name
        Chat(speakers, writer, sampling, Transcript({"run": writer.name, "sampling": sampling})).run()


@dataclass
class Chat:
    """The loop between a person, or a pipe, and one or two models."""

    speakers: list[Speaker]
    writer: Writer
    sampling: dict[str, Any]
    transcript: Transcript
    out: Console = field(default_factory=console)
    file: Path | None = None

    def __post_init__(self) -> None:
        from hone.cli.talk import transcript_path

        self.person = sys.stdin.isatty() and self.out.is_terminal
        self.notes = self.out if self.person else console(stderr=True)
        if self.writer.folder is not None:
            self.file = transcript_path(self.writer.folder)
        self.thumbs = Thumbs((self.writer.folder or Path()) / "preferences.jsonl")
        self._tries = 0

    def run(self) -> None:
        """Answer line after line until the input ends."""
        if self.person:
            self.note(f"{self.writer.name}\ntemplate {self.writer.template}\n{COMMANDS}")
        for line in self._lines():
            if line == "/quit":
                break
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._try(line)
        if self.file is not None and self.transcript.save(self.file, self.speakers) and self.person:
            self.note(f"saved: {self.file}")

    def note(self, text: str) -> None:
        """What is not part of an answer."""
        self.notes.print(tame(text), style="dim", soft_wrap=True)

    def _lines(self) -> Iterator[str]:
        if not self.person:
            if isinstance(sys.stdin, io.TextIOWrapper):
                sys.stdin.reconfigure(errors="replace")  # a pipe may hold anything
            yield from (line.strip() for line in sys.stdin)
            return
        import readline  # noqa: F401  # gives `input` editing and a history

        while True:
            try:
                yield input("\nyou> ").strip()
            except EOFError:
                self.out.print()
                return

    def _command(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "/reset":
            self.transcript.close(self.speakers)
            for speaker in self.speakers:
                speaker.reset()
            self.note("a new conversation")
        elif word == "/save":
            self._save(rest.strip())
        elif word in ("/up", "/down"):
            self._judge(word, rest.strip())
        else:
            self.note(f"{word} is not a command: {COMMANDS}")

    def _save(self, name: str) -> None:
        from hone.cli.talk import transcript_path

        path = Path(name) if name else self.file or transcript_path(None)
        try:
            lines = self.transcript.save(path, self.speakers)
        except OSError as error:
            return self.note(f"not saved, {path}: {error.strerror}")
        self.note(f"saved: {path}" if lines else "nothing has been said yet")

    def _judge(self, word: str, name: str) -> None:
        """With one model, /down draws another answer and /up prefers the present one to those; with two, a name says whose is better."""
        names = [speaker.name for speaker in self.speakers]
        if len(names) > 1 and name not in names:
            return self.note(f"whose answer? {' or '.join(f'{word} {each}' for each in names)}")
        speaker = self.speakers[names.index(name)] if name else self.speakers[0]
        if speaker.last is None:
            return self.note("nothing has been said yet")
        self.thumbs.ask(speaker.asked)
        if len(names) > 1:
            return self._prefer(speaker, word)
        if word == "/up":
            return self._kept(speaker.last)
        self.thumbs.down(speaker.last)
        self._tries += 1
        warmer = {"temperature": max(AGAIN, self.sampling["temperature"]), "seed": self.sampling["seed"] + self._tries}
        self._try(speaker.unsay(), warmer)

    def _prefer(self, speaker: Speaker, word: str) -> None:
        others = [other for other in self.speakers if other is not speaker]
        if any(other.last is None or other.asked != speaker.asked for other in others):
            return self.note("these answers belong to conversations that have gone different ways: /reset starts anew")
        if word == "/down" and len(others) > 1:
            return self.note("with more than two answers, /up NAME says which is best")
        better = speaker if word == "/up" else others[0]
        for other in self.speakers:
            if other is not better and other.last is not None:
                self.thumbs.down(other.last)
        self._kept(str(better.last))
        for other in self.speakers:
            other.go_on_from(better)

    def _kept(self, answer: str) -> None:
        pairs = self.thumbs.up(answer)
        nothing = "there is no worse answer to compare it with: /down draws another"
        self.note(f"{pairs} pair{'s' * (pairs != 1)} in {self.thumbs.path}" if pairs else nothing)

    def _try(self, question: str, more: dict[str, Any] | None = None) -> None:
        """Ask; a person's Ctrl-C ends the answer, not the talk."""
        try:
            self._ask(question, self.sampling | (more or {}))
        except KeyboardInterrupt:
            if not self.person:
                raise
            self.note("\nbroken off, and forgotten")

    def _ask(self, question: str, sampling: dict[str, Any]) -> None:
        if self.person and len(self.speakers) > 1:
            self._side_by_side(question, sampling)
        else:
            for speaker in self.speakers:
                if len(self.speakers) > 1:
                    self.out.out(f"{speaker.name}> ", end="")
                turn = speaker.answer(question, self._show, **sampling)
                self.out.out("")
                self._remark(turn)
        if self.file is not None:
            self.transcript.save(self.file, self.speakers)

    def _side_by_side(self, question: str, sampling: dict[str, Any]) -> None:
        """Two columns that fill as the answers come."""
        from rich.live import Live

        texts, notes = [""] * len(self.speakers), [""] * len(self.speakers)
        with Live(self._columns(texts, notes), console=self.out) as live:
            for i, speaker in enumerate(self.speakers):

                def show(piece: str, i: int = i) -> None:
                    texts[i] += tame(piece)
                    live.update(self._columns(texts, notes))

                turn = speaker.answer(question, show, **sampling)
                notes[i] = turn.note if turn is not None else FULL
                live.update(self._columns(texts, notes))

    def _columns(self, texts: list[str], notes: list[str]) -> RenderableType:
        from rich.table import Column, Table
        from rich.text import Text

        table = Table(*(Column(one.name, ratio=1) for one in self.speakers), box=None, expand=True, padding=(0, 2, 0, 0))
        table.add_row(*(Text.assemble(text, "\n", (note, "dim")) for text, note in zip(texts, notes, strict=True)))
        return table

    def _remark(self, turn: Turn | None) -> None:
        if turn is None:
            self.note(FULL)
        elif self.person or turn.answer.stop_reason == "length":
            self.note(turn.note)

    def _show(self, piece: str) -> None:
        self.out.out(tame(piece), end="", highlight=False)
        self.out.file.flush()
