"""The command line: a table of verbs, each imported only when it runs, and the one place where faults end."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from hone import __version__

EPILOG = """\b
Start here:
  hone demo
  hone plan sft model=Qwen/Qwen3-0.6B data=train.jsonl
  hone train sft model=Qwen/Qwen3-0.6B data=train.jsonl
  hone chat runs/NAME"""


class Verb(NamedTuple):
    """Where a command lives. It is a function, or a `typer.Typer` for a group of commands."""

    module: str
    attribute: str
    help: str
    takes_settings: bool = False
    """Whether words such as `optim.epochs=2` and `--lr=1e-4` are passed on to the run's settings."""


VERBS = {
    "demo": Verb("hone.cli.demo", "command", "The whole story in about two minutes."),
    "train": Verb("hone.cli.train", "command", "Train a model on data, or go on training.", takes_settings=True),
    "sweep": Verb("hone.cli.sweep", "command", "Other settings side by side; is the best really better?", takes_settings=True),
    "compare": Verb("hone.cli.compare", "command", "Runs side by side, and what their difference is worth."),
    "forecast": Verb("hone.cli.forecast", "command", "The loss that a run will end with."),
    "pipeline": Verb("hone.cli.pipeline", "command", "SFT and what follows it, stage after stage.", takes_settings=True),
    "plan": Verb("hone.cli.plan", "command", "Memory, time and advice; trains nothing.", takes_settings=True),
    "advise": Verb("hone.cli.advise", "command", "What to train and how, each with its reason.", takes_settings=True),
    "model": Verb("hone.cli.model", "app", "What a model is, and what is wrong with its files."),
    "prove": Verb("hone.cli.prove", "command", "Prove a run on a small copy of it, before it costs anything.", takes_settings=True),
    "lint": Verb("hone.cli.lint", "command", "A run file against the rules of the field.", takes_settings=True),
    "data": Verb("hone.cli.data", "app", "Check, show, count, split and mend data."),
    "chat": Verb("hone.cli.chat", "command", "Talk with a run or a model."),
    "serve": Verb("hone.serve.command", "command", "Answer OpenAI clients with runs and models."),
    "eval": Verb("hone.cli.eval", "command", "Measure a run on data it has not seen."),
    "doctor": Verb("hone.cli.doctor", "command", "What ails a run, what shows it, what to change."),
    "export": Verb("hone.cli.export", "command", "Take a model elsewhere: merged, GGUF, Ollama, vLLM, the hub."),
    "combine": Verb("hone.cli.combine", "command", "LoRAs of one base added up into one."),
    "quantise": Verb("hone.cli.quantise", "command", "A copy in 4 or 8 bits, uniform or dynamic."),
    "verify": Verb("hone.cli.verify", "command", "Is a copy of a model the one that was trained?"),
    "env": Verb("hone.cli.env", "command", "This machine: versions, devices, memory."),
    "explain": Verb("hone.cli.explain", "command", "What a code, a setting or a word means."),
    "list": Verb("hone.cli.listing", "command", "What can be chosen by name."),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, a fault's own (2 usage, 3 data, 4 resources), 1 for ours, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to stop
    words = list(sys.argv[1:] if args is None else args)
    try:
        frame()(words or ["--help"], prog_name="hone")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return _tell(error)
    raise AssertionError("typer ends every command with SystemExit")


def frame() -> TyperGroup:
    """The group of all verbs. None of their modules is imported."""
    app = typer.Typer(
        help="Post-training for language models that proves what it did.",
        epilog=EPILOG,
        result_callback=_leave,
        context_settings={"help_option_names": ["-h", "--help"]},
        **_PLAIN,
    )
    app.callback()(_options)
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, verb in VERBS.items():
        group.add_command(LazyVerb(name, verb))
    return group


class LazyVerb(TyperCommand):
    """A line of the help text that becomes the real command, with all its imports, when it is called."""

    def __init__(self, name: str, verb: Verb) -> None:
        super().__init__(name, help=verb.help, rich_markup_mode=None)
        self.verb = verb

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.load().make_context(info_name, args, parent, **extra)

    def load(self) -> Any:
        """Import the module and build its command."""
        thing = getattr(import_module(self.verb.module), self.verb.attribute)
        if isinstance(thing, typer.Typer):
            return typer.main.get_command(thing)
        app = typer.Typer(**_PLAIN)
        app.command(self.name, context_settings={"ignore_unknown_options": self.verb.takes_settings})(thing)
        return typer.main.get_command(app)


_PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None}


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hone {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Takes the options that come before a verb."""


def _leave(status: Any, **options: Any) -> None:
    """What a verb returns is the exit status; nothing means that all went well."""
    raise typer.Exit(status or 0)


def _tell(error: Exception) -> int:
    from hone.cli.faults import show_bug, show_fault
    from hone.core.disk import is_full
    from hone.core.errors import HoneError

    if isinstance(error, OSError) and is_full(error):
        fix = "free some space; what has its name is whole, and a run goes on by the same command"
        error = HoneError("F004", f"the disk is full ({error.strerror})", where=str(error.filename or ""), fix=fix)
    return show_fault(error) if isinstance(error, HoneError) else show_bug(error)
