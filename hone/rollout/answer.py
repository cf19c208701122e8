"""One answer while it is written, and when it is done: its tokens, when it stops, and its text."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from hone.rollout.warp import Sampling

OnToken = Callable[[int, int], None]
"""Called with (index of the prompt, new token) as each token is chosen."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote after one prompt."""

    tokens: list[int]
    """Everything that was sampled, with the stop token where there is one."""
    logps: list[float]
    """Log-probability of each token under the model's own distribution, whatever the temperature."""
    stop_reason: Literal["stop", "length"]
    """`stop`: it ended by itself. `length`: it was cut."""
    text: str
    """The tokens as text, without the stop token or stop string."""
    recalled: int = 0
    """Tokens of the prompt that were held from before, and not computed again."""


@dataclass(slots=True)
class Stops:
    """What ends an answer: token ids, or text."""

    ids: frozenset[int]
    strings: tuple[str, ...]
    tokenizer: Any

    def hit(self, tokens: list[int]) -> bool:
        """Whether the last token ends the answer."""
        return tokens[-1] in self.ids or (bool(self.strings) and self._written(tokens))

    def _written(self, tokens: list[int]) -> bool:
        # a character can take four tokens of one byte each
        tail = 4 * max(map(len, self.strings)) + 4
        text = decode(self.tokenizer, tokens[-tail:])
        return any(string in text for string in self.strings)

    def text(self, tokens: list[int]) -> str:
        """The text before whatever ended it."""
        text = decode(self.tokenizer, tokens[:-1] if tokens and tokens[-1] in self.ids else tokens)
        ends = [text.find(string) for string in self.strings if string in text]
        return text[: min(ends)] if ends else text


@dataclass(slots=True)
class Request:
    """A prompt whose answer is being written."""

    index: int
    prompt: list[int]
    limit: int
    """Most new tokens: what was asked for, or what the model's context leaves."""
    stops: Stops
    how: Sampling
    on_token: OnToken | None = None
    alternatives: int = 0
    """How many of the likeliest tokens are noted at each place."""
    tokens: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    likeliest: list[list[tuple[int, float]]] = field(default_factory=list)
    """The likeliest tokens at each place with their log-probabilities, where they are asked for."""
    stopped: bool = False
    recalled: int = 0
    """Tokens of the prompt that were held already, and not computed again."""
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.how.seed}/{self.index}")

    def uniform(self) -> float:
        """The next number of this row's own stream."""
        return self._random.random() if self.how.temperature else 0.0

    def add(self, token: int, logp: float) -> None:
        self.tokens.append(token)
        self.logps.append(logp)
        self.stopped = self.stops.hit(self.tokens)
        if self.on_token is not None:
            self.on_token(self.index, token)

    @property
    def done(self) -> bool:
        return self.stopped or len(self.tokens) >= self.limit

    @property
    def position(self) -> int:
        """Where the last token stands, counted from the start of the prompt."""
        return len(self.prompt) + len(self.tokens) - 1

    def answer(self) -> Answer:
        return Answer(self.tokens, self.logps, "stop" if self.stopped else "length", self.stops.text(self.tokens), self.recalled)


def decode(tokenizer: Any, tokens: Iterable[int]) -> str:
    """Tokens as text, without special tokens and without tidying up."""
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


WINDOW, OVERLAP = 24, 4
"""Tokens that are turned into text together, and how many of them stay: a token's text can depend on its neighbours."""


class Detokenizer:
    """Tokens to text as they come. Holds back what is half a character, or may be the start of a stop string."""

    def __init__(self, tokenizer: Any, stop_strings: tuple[str, ...] = ()) -> None:
        self.tokenizer, self.stop_strings = tokenizer, stop_strings
        self._tokens: list[int] = []
        self._shown = 0
        """Characters of the window that have been given out."""
        self._start = 0
        """Tokens before this one are finished with."""

    def add(self, token: int) -> str:
        """The new text, possibly none yet."""
        self._tokens.append(token)
        text = decode(self.tokenizer, self._tokens[self._start :])
        safe = self._safe(text)
        fresh, self._shown = text[self._shown : safe], max(self._shown, safe)
        if len(self._tokens) - self._start > WINDOW and safe == len(text):
            self._start = len(self._tokens) - OVERLAP
            self._shown = len(decode(self.tokenizer, self._tokens[self._start :]))
        return fresh

    def rest(self) -> str:
        """What was held back, once nothing more comes: not a stop string, nor what follows it."""
        text = decode(self.tokenizer, self._tokens[self._start :])
        return text[self._shown : min((text.find(stop) for stop in self.stop_strings if stop in text), default=len(text))]

    def _safe(self, text: str) -> int:
        """How many characters can be shown whatever comes next."""
        whole = len(text.rstrip("\N{REPLACEMENT CHARACTER}"))
        found = [text.find(stop) for stop in self.stop_strings if stop in text]
        begun = [len(text) - n for stop in self.stop_strings for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return min([whole, *found, *begun])
