"""Text from the live weights: many prompts at once, finished rows leave and waiting ones enter, nothing is computed twice.

Equal prompts are computed once, however many answers they get, and a prompt that begins like a row already held goes on
from there. The weights are used as they stand, adapters included, so what is sampled is what is trained.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.models import attention, decode
from hone.models.decode import KVCache
from hone.models.heads import head_of, text_config
from hone.models.policy import using_attention
from hone.rollout.answer import Answer, Request, Stops
from hone.rollout.stock import write_with_stock
from hone.rollout.warp import Sampling, pick

PREFILL = 8192
"""Tokens of prompts, padding included, that one forward reads."""
HANDFUL = 8
"""Waiting prompts enter when this fraction of the rows is free, since a forward for one prompt alone is dear."""

OnToken = Callable[[int, int], None]
"""Called with (index of the prompt, new token) as each token is chosen."""


class Sampler:
    """Writes answers with a live model. `rows` are written at a time, fewer where their keys would exceed `cache_bytes`.

    `stock` is the attention that the model came with (None: the present one, or "sdpa" where that is already ours); it
    writes for models that our cache does not fit, which a probe finds out.
    `reuse` keeps the cache between calls, for a conversation with weights that do not move.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, rows: int = 64, cache_bytes: int = 2 << 30, stock: str | None = None, reuse: bool = False
    ) -> None:
        self.model, self.tokenizer, self.rows, self.cache_bytes, self.reuse = model, tokenizer, rows, cache_bytes, reuse
        present: str = model.config._attn_implementation  # type: ignore[union-attr, assignment]
        self.stock = stock or ("sdpa" if present in (attention.NAME, decode.NAME) else present)
        self.context = context_of(model)
        """Positions that the model has; None is without limit."""
        self.fit = decode.probe(model, self.stock)
        self._cache: KVCache | None = None

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], *, stop_ids: Iterable[int] = (), on_token: OnToken | None = None, **sampling: Any
    ) -> list[Answer]:
        """An answer for each prompt of token ids, in order; `sampling` are the fields of `hone.rollout.warp.Sampling`.

        Raises M002 for a prompt that leaves no room in the model's context, C001 and C002 for what `Sampling` does not
        take, and M030 where the model answers with something that is not a number.
        """
        how = parse(Sampling, sampling, section="sampling")
        stops = Stops(frozenset(stop_ids), how.stop_strings, self.tokenizer)
        requests = [self._request(i, list(prompt), stops, how) for i, prompt in enumerate(prompts)]
        ours = [r for r in requests if self.fit.works and (self.fit.horizon is None or len(r.prompt) + r.limit <= self.fit.horizon)]
        chosen = {r.index for r in ours}
        others = [r for r in requests if r.index not in chosen]
        training = self.model.training
        self.model.eval()
        try:
            if ours:
                self._write(ours, on_token)
            if others:
                self._write_otherwise(others, on_token)
        finally:
            self.model.train(training)
        return [request.answer() for request in requests]

    def _request(self, index: int, prompt: list[int], stops: Stops, how: Sampling) -> Request:
        assert prompt, "a prompt needs at least one token"
        limit = how.max_new_tokens
        if self.context is not None:
            if len(prompt) >= self.context:
                what = f"a prompt of {len(prompt)} tokens leaves no room in this model's context of {self.context}"
                raise HoneError("M002", what, where=f"prompt {index + 1}", fix="shorten the prompt, or take a model with a longer context")
            limit = min(limit, self.context - len(prompt))
        return Request(index, prompt, limit, stops, how)

    def _write_otherwise(self, requests: list[Request], on_token: OnToken | None) -> None:
        """With the model's own cache, in batches of prompts of one length, which need no padding."""
        by_length: dict[int, list[Request]] = defaultdict(list)
        for request in requests:
            by_length[len(request.prompt)].append(request)
        with using_attention(self.model, self.stock):
            for same in by_length.values():
                for start in range(0, len(same), self.rows):
                    write_with_stock(self.model, same[start : start + self.rows], lambda rows, logits: _choose(rows, logits, on_token))

    def _write(self, requests: list[Request], on_token: OnToken | None) -> None:
        # like lengths enter together, and equal prompts side by side
        waiting = deque(sorted(requests, key=lambda r: (-len(r.prompt), r.prompt)))
        batch = _Batch(self.model, self._room(requests), on_token)
        with using_attention(self.model, decode.NAME):
            while waiting or batch.active:
                batch.admit(waiting)
                batch.step()
        if not self.reuse:
            self._cache = None

    def _room(self, requests: list[Request]) -> KVCache:
        """A cache for these requests: the one that was kept, made longer if need be, or a new one."""
        length = max(len(r.prompt) + r.limit for r in requests)
        if self._cache is None:
            fitting = max(1, self.cache_bytes // (length * max(1, self.fit.bytes_per_token)))
            self._cache = KVCache(min(self.rows, fitting, self.rows if self.reuse else len(requests)), length)
        elif length > self._cache.length:
            self._cache.grow(length)
        return self._cache


class _Batch:
    """The rows being written: request i lives in row i of the cache, so that a step reads the cache in place."""

    def __init__(self, model: nn.Module, cache: KVCache, on_token: OnToken | None) -> None:
        self.model, self.head, self.cache, self.on_token = model, head_of(model), cache, on_token
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
        if len(rows) > 1 and self._alike(rows) >= decode.WORTH:
            found, rows = self._prefill(rows[:1]), rows[1:]
        starts = {row: self.cache.recall(row, self.active[row].prompt) for row in rows}
        for part in _portions(rows, lambda row: (starts[row] > 0, len(self.active[row].prompt) - starts[row])):
            new = [self.active[row].prompt[starts[row] :] for row in part]
            logits = decode.forward(self.model, self.head, self.cache, part, new, [starts[row] for row in part])
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
        self._accept(rows, decode.forward(self.model, self.head, self.cache, rows, last, places))

    def _accept(self, rows: range, logits: Tensor) -> None:
        _choose([self.active[row] for row in rows], logits, self.on_token)
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


def _choose(requests: Sequence[Request], logits_BV: Tensor, on_token: OnToken | None) -> None:
    """One more token for each request that is not done."""
    tokens_B, logps_B = pick(logits_BV, requests[0].how, [request.uniform() for request in requests])
    for request, token, logp in zip(requests, tokens_B.tolist(), logps_B.tolist(), strict=True):
        if logp != logp:
            where = f"prompt {request.index + 1}, token {len(request.tokens) + 1}"
            raise HoneError("M030", "the model's output is not a number", where=where, fix="use an earlier checkpoint")
        if not request.done:
            request.add(token, logp)
            if on_token is not None:
                on_token(request.index, token)


def context_of(model: nn.Module) -> int | None:
    """How many positions a model has, under any of the names that configurations use."""
    options = text_config(model).to_dict()
    named = [options.get(name) for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")]
    return next((limit for limit in named if isinstance(limit, int)), None)
