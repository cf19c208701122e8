"""The models that a server answers with: a name, how it reads and writes, and the rows that it is writing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from hone.core.errors import HoneError
from hone.core.types import Sequence as Tokens
from hone.data.batching import pack
from hone.models.decode import KVCache
from hone.models.llama import Narrow
from hone.recipe.build import Opened
from hone.recipe.opening import Bases, open_model
from hone.rollout.answer import OnToken, Request, Stops
from hone.rollout.batch import Batch
from hone.rollout.sample import Sampler
from hone.rollout.warp import Sampling
from hone.serve.limits import Limits


@dataclass(slots=True)
class Voice:
    """One model under its public name. `waiting` and `batch` belong to the engine's thread."""

    name: str
    opened: Opened
    sampler: Sampler
    limits: Limits
    waiting: deque[Request] = field(default_factory=deque)
    batch: Batch | None = None

    @property
    def positions(self) -> int:
        """How long a prompt and its answer can be together: the model's context, or what leaves room for four rows."""
        fitting = self.limits.cache_bytes // (4 * max(1, self.sampler.fit.bytes_per_token))
        return min(self.sampler.context or self.limits.positions, fitting)

    def start(self, stack: ExitStack) -> None:
        """Make the cache and hold the model open for writing. In the engine's thread, once."""
        if self.sampler.fit.works:
            self.batch = Batch(stack.enter_context(self.sampler.reading()), self._cache())

    def _cache(self) -> KVCache:
        rows = self.limits.cache_bytes // (self.positions * max(1, self.sampler.fit.bytes_per_token))
        return KVCache(max(1, min(self.limits.rows, rows)), self.positions)

    def reset(self) -> list[Request]:
        """Forget what is being written, after a fault; returns it."""
        lost = list(self.waiting)
        self.waiting.clear()
        if self.batch is not None:
            lost += self.batch.active
            self.batch = Batch(self.batch.read, self._cache())
        return lost

    def request(self, index: int, prompt: list[int], how: Sampling, on_token: OnToken, *, alternatives: int) -> Request:
        """A prompt to be answered. Raises M002 where it leaves no room."""
        if len(prompt) >= self.positions:
            what = f"a prompt of {len(prompt)} tokens leaves no room in a context of {self.positions}"
            raise HoneError("M002", what, fix="shorten the conversation")
        stops = Stops(frozenset(self.opened.template.stop_ids), how.stop_strings, self.opened.tokenizer)
        made = self.sampler.request(index, prompt, stops, how, on_token)
        made.limit = min(made.limit, self.positions - len(prompt))
        made.alternatives = alternatives
        return made

    def step(self) -> bool:
        """One more token for every row; whether anything was to do."""
        if self.batch is None:
            return self._write_alone()
        self.batch.admit(self.waiting)
        self.batch.step()
        return bool(self.batch.active or self.waiting)

    def _write_alone(self) -> bool:
        """A model that our cache does not fit writes one answer after the other with its own."""
        if self.waiting:
            self.sampler.write_otherwise([self.waiting.popleft()])
        return bool(self.waiting)

    @torch.inference_mode()
    def embed(self, texts: Sequence[list[int]]) -> list[list[float]]:
        """The mean of each text's last hidden states, of length one. In the engine's thread."""
        found = []
        for text in texts:
            batch = pack([(Tokens(text, [0.0] * len(text)),)]).to(self.opened.policy.device)
            mean = self.opened.policy.hidden(batch).float().mean(0)
            found.append((mean / mean.norm().clamp(min=1e-12)).tolist())
        return found


def open_voices(names: Iterable[str], limits: Limits) -> dict[str, Voice]:
    """Every run or model by the last part of its name; what they have in common is in memory once. Raises S041, S043."""
    bases, narrow = Bases(), Narrow()
    found: dict[str, Voice] = {}
    for name in names:
        short = Path(name).name or name
        if short in found:
            fix = "rename one of the folders"
            raise HoneError("S041", f"two models would be called '{short}'", where=name, fix=fix)
        opened = open_model(name, load=bases)
        bases.check(name)
        sampler = Sampler(opened.policy.model, opened.tokenizer, stock=opened.policy.stock, rows=limits.rows, reuse=True)
        sampler.narrow = narrow
        found[short] = Voice(short, opened, sampler, limits)
    return found
