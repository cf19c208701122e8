"""The answers that are being written together: finished rows leave, waiting requests enter, every step serves all rows.

Request i lives in row i of the cache, so that a step reads the cache in place.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from hone.core.errors import HoneError
from hone.models import decode
from hone.models.decode import KVCache, Read
from hone.rollout.answer import Request
from hone.rollout.warp import pick

PREFILL = 8192
"""Tokens of prompts, padding included, that one forward reads."""
HANDFUL = 8
"""Waiting prompts enter when this fraction of the rows is free, since a forward for one prompt alone is dear."""


class Batch:
    """Requests in the rows of a cache. `read` feeds the model."""

    def __init__(self, read: Read, cache: KVCache) -> None:
        self.read, self.cache = read, cache
        self.active: list[Request] = []

    def admit(self, waiting: deque[Request]) -> None:
        """Let waiting requests in, compute their prompts, and choose their first tokens."""
        free = self.cache.rows - len(self.active)
        if not waiting or (self.active and free < max(1, self.cache.rows // HANDFUL)):
            return
        first = len(self.active)
        entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
        self.active += entering
        leaders: dict[tuple[int, ...], int] = {}
        for row, request in enumerate(entering, start=first):
            leaders.setdefault(tuple(request.prompt), row)
        logits = self._prefill(list(leaders.values()))
        order = [leaders[tuple(request.prompt)] for request in entering]
        for row, (request, leader) in enumerate(zip(entering, order, strict=True), start=first):
            if row != leader:
                self.cache.copy(leader, row, len(request.prompt))
        self._accept(range(first, first + len(entering)), torch.stack([logits[leader] for leader in order]))

    def _prefill(self, rows: list[int]) -> dict[int, Tensor]:
        """Logits after the prompt of each row. Rows that begin with something held are computed from there on."""
        found: dict[int, Tensor] = {}
        if len(rows) > 1 and self._alike(rows) >= self.cache.filled + decode.WORTH:
            found, rows = self._prefill(rows[:1]), rows[1:]
        starts = {row: self.cache.recall(row, self.active[row].prompt) for row in rows}
        for row in rows:
            self.active[row].recalled = starts[row]
        for part in _portions(rows, lambda row: (starts[row] > self.cache.filled, len(self.active[row].prompt) - starts[row])):
            new = [self.active[row].prompt[starts[row] :] for row in part]
            logits = self.read(self.cache, part, new, [starts[row] for row in part])
            found |= dict(zip(part, logits, strict=True))
        return found

    def _alike(self, rows: list[int]) -> int:
        """How many first tokens all these prompts share, a system prompt for instance."""
        prompts = [self.active[row].prompt for row in rows]
        return decode.common_prefix(min(prompts), max(prompts))

    def step(self) -> None:
        """One more token for every row."""
        if not self.active:
            return
        rows = range(len(self.active))
        last, places = [[r.tokens[-1]] for r in self.active], [r.position for r in self.active]
        self._accept(rows, self.read(self.cache, rows, last, places))

    def _accept(self, rows: range, logits: Tensor) -> None:
        choose([self.active[row] for row in rows], logits)
        for row in reversed(rows):
            if self.active[row].done:
                self._leave(row)

    def _leave(self, row: int) -> None:
        """The last row takes the place of the one that leaves."""
        last = len(self.active) - 1
        if row != last:
            self.cache.copy(last, row, len(self.cache.held[last]))
            self.active[row] = self.active[last]
        self.active.pop()

    def drop(self, unwanted: Callable[[Request], bool]) -> list[Request]:
        """Let go of requests that nobody waits for any more; returns them."""
        gone = [row for row, request in enumerate(self.active) if unwanted(request)]
        dropped = [self.active[row] for row in gone]
        for row in reversed(gone):
            self._leave(row)
        return dropped


def _portions(rows: list[int], key: Callable[[int], tuple[bool, int]]) -> Iterable[list[int]]:
    """Rows of like length together, up to a number of tokens; rows that start afresh apart from those that go on."""
    part: list[int] = []
    for row in sorted(rows, key=key):
        if part and (key(row)[0] != key(part[0])[0] or key(row)[1] * (len(part) + 1) > PREFILL):
            yield part
            part = []
        part.append(row)
    if part:
        yield part


def choose(requests: Sequence[Request], logits_BV: Tensor) -> None:
    """One more token for each request that is not done. Rows that are sampled alike are sampled together."""
    alike: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for row, request in enumerate(requests):
        alike[request.how.shape].append(row)
    for rows in alike.values():
        some = logits_BV if len(rows) == len(requests) else logits_BV[rows]
        tokens, logps = pick(some, requests[rows[0]].how, [requests[row].uniform() for row in rows])
        for row, token, logp in zip(rows, tokens.tolist(), logps.tolist(), strict=True):
            _add(requests[row], token, logp, logits_BV[row])


def _add(request: Request, token: int, logp: float, logits_V: Tensor) -> None:
    if logp != logp:
        where = f"prompt {request.index + 1}, token {len(request.tokens) + 1}"
        raise HoneError("M030", "the model's output is not a number", where=where, fix="use an earlier checkpoint")
    if request.done:
        return
    if request.alternatives:
        best = logits_V.topk(request.alternatives)
        logps = best.values - (logits_V[token] - logp)
        request.likeliest.append(list(zip(best.indices.tolist(), logps.tolist(), strict=True)))
    request.add(token, logp)
