"""What a reward is: answers in, a number for each out. A kind's keyword arguments are its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hone.core.config import parse, settings_of
from hone.core.registry import Registry
from hone.core.types import Conversation, Origin


@dataclass(frozen=True, slots=True)
class Written:
    """One answer, as a reward sees it."""

    text: str
    prompt: Conversation = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    """All columns that the prompt came with; `answer` is the expected one, where there is one."""
    group: int = 0
    """Answers to the same prompt have the same number."""
    tokens: int = 0
    """Sampled tokens, the end marker included."""
    stopped: bool = True
    """It ended by itself and was not cut."""
    origin: Origin = Origin("memory", 0)


class Fault(NamedTuple):
    """Why an answer has no score: R001 no finite number, R002 wrong count, R003 it failed, R004 it took too long."""

    code: str
    what: str


Score = float | Fault
Reward = Callable[[Sequence[Written]], Sequence[Score]]
"""Judges many answers at once, since models and judges are faster so. What it raises counts against all of them."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What rewards may need from the run around them."""

    seconds: float = 10.0
    """An answer that takes longer to judge has no score."""
    log: Path | None = None
    """Where what rewards print goes. None throws it away."""
    scorer: Callable[[str], Callable[[Sequence[Conversation]], Sequence[float]]] | None = None
    """Opens a reward model by name: a function from conversations to scores."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A reward that can be chosen by name. `make` takes its settings and the tools."""

    name: str
    make: Callable[..., Reward]
    settings: type
    help: str

    def bind(self, tools: Tools, values: Mapping[str, Any]) -> Reward:
        """The reward with its settings fixed. Raises C001, C002 for what it does not take."""
        checked: Any = parse(self.settings, values, section=f"rollout.rewards.{self.name}")
        return self.make(tools, **asdict(checked))


REWARDS: Registry[Kind] = Registry("reward")


def rule(fn: Callable[..., float]) -> Callable[..., float]:
    """Register a quick function of one answer under its own name: `fn(written, *, settings) -> float`. It cannot hang."""

    def make(tools: Tools, **settings: Any) -> Reward:
        return lambda answers: [_attempt(fn, written, settings) for written in answers]

    REWARDS.add(fn.__name__)(Kind(fn.__name__, make, settings_of(fn), fn.__doc__ or ""))
    return fn


def kind(fn: Callable[..., Reward]) -> Callable[..., Reward]:
    """Register what makes a reward for many answers under its own name: `fn(tools, *, settings) -> Reward`."""
    REWARDS.add(fn.__name__)(Kind(fn.__name__, fn, settings_of(fn), fn.__doc__ or ""))
    return fn


def _attempt(fn: Callable[..., float], written: Written, settings: Mapping[str, Any]) -> Score:
    try:
        return fn(written, **settings)
    except Exception as error:  # a row without the column, a text where a number should be
        return Fault("R003", f"{type(error).__name__}: {error}")


def expected(row: Mapping[str, Any], column: str) -> str:
    """What the answer should have been, as text. Raises KeyError with the columns that there are."""
    if column not in row:
        raise KeyError(f"the row has no column '{column}', only {', '.join(row) or 'none'}")
    return str(row[column])
