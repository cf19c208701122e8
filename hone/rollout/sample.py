"""Text from the live weights: many prompts at once, finished rows leave and waiting ones enter, nothing is computed twice.

Equal prompts are computed once, however many answers they get, and a prompt that begins like a row already held goes on
from there. The weights are used as they stand, adapters included, so what is sampled is what is trained.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.config import parse
from hone.core.errors import HoneError
from hone.models import attention, decode, llama, prologue
from hone.models.decode import KVCache, Read
from hone.models.heads import head_of, text_config
from hone.models.policy import using_attention
from hone.rollout.answer import Answer, OnToken, Request, Stops
from hone.rollout.batch import Batch, choose
from hone.rollout.stock import write_with_stock
from hone.rollout.warp import Sampling
from hone.tuning.base import prologue_of

LONG = 256
"""Prompts from this length on are read by the model's own modules, whose products of large matrices are faster."""


class Sampler:
    """Writes answers with a live model. `rows` are written at a time, fewer where their keys would exceed `cache_bytes`.

    `stock` is the attention that the model came with (None: the present one, or "sdpa" where that is already ours); it
    writes for models that our cache does not fit, which a probe finds out.
    `reuse` keeps the cache between calls, for conversations with weights that do not move.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, rows: int = 64, cache_bytes: int = 2 << 30, stock: str | None = None, reuse: bool = False
    ) -> None:
        self.model, self.tokenizer, self.rows, self.cache_bytes, self.reuse = model, tokenizer, rows, cache_bytes, reuse
        present: str = model.config._attn_implementation  # type: ignore[union-attr, assignment]
        self.stock = stock or ("sdpa" if present in (attention.NAME, decode.NAME) else present)
        self.context = context_of(model)
        """Positions that the model has; None is without limit."""
        self.fit = llama.probe(model, self.stock, decode.probe(model, self.stock))
        self._cache: KVCache | None = None
        self.narrow: llama.Narrow | None = {} if reuse else None
        """Copies in bf16 of weights that do not move; samplers on one base may share them."""

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
        requests = [self.request(i, list(prompt), stops, how, on_token) for i, prompt in enumerate(prompts)]
        ours = [r for r in requests if self.fit.works and (self.fit.horizon is None or len(r.prompt) + r.limit <= self.fit.horizon)]
        chosen = {r.index for r in ours}
        others = [r for r in requests if r.index not in chosen]
        training = self.model.training
        self.model.eval()
        try:
            if ours:
                self._write(ours)
            if others:
                self.write_otherwise(others)
        finally:
            self.model.train(training)
        return [request.answer() for request in requests]

    def request(self, index: int, prompt: list[int], stops: Stops, how: Sampling, on_token: OnToken | None = None) -> Request:
        """A prompt to be answered, within the model's context. Raises M002."""
        assert prompt, "a prompt needs at least one token"
        limit = how.max_new_tokens
        if self.context is not None:
            taken = len(prompt) + prologue.positions(self.model)
            if taken >= self.context:
                what = f"a prompt of {taken} tokens leaves no room in this model's context of {self.context}"
                raise HoneError("M002", what, where=f"prompt {index + 1}", fix="shorten the prompt, or take a model with a longer context")
            limit = min(limit, self.context - taken)
        return Request(index, prologue.lead(self.model) + prompt, limit, stops, how, on_token)

    def write_otherwise(self, requests: list[Request]) -> None:
        """Write with the model's own cache, in batches of prompts of one length, which need no padding."""
        by_length: dict[int, list[Request]] = defaultdict(list)
        for request in requests:
            by_length[len(request.prompt)].append(request)
        with using_attention(self.model, prologue.attention_for(self.model, self.stock)):
            for same in by_length.values():
                for start in range(0, len(same), self.rows):
                    write_with_stock(self.model, same[start : start + self.rows], choose)

    def _write(self, requests: list[Request]) -> None:
        # like lengths enter together, and equal prompts side by side
        waiting = deque(sorted(requests, key=lambda r: (-len(r.prompt), r.prompt)))
        with self.reading() as read:
            batch = Batch(read, self._room(requests))
            while waiting or batch.active:
                batch.admit(waiting)
                batch.step()
        if not self.reuse:
            self._cache = None

    @contextmanager
    def reading(self) -> Iterator[Read]:
        """The fastest way to feed tokens to the model as it stands now."""
        modules = partial(decode.forward, self.model, head_of(self.model))
        with using_attention(self.model, decode.NAME):
            if not self.fit.quick:
                yield modules
                return
            one = llama.Llama(self.model, self.fit.windows, self.narrow)

            def read(cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
                long = not one.half and max(map(len, tokens)) >= LONG
                return (modules if long else one.forward)(cache, rows, tokens, starts)

            yield read

    def _room(self, requests: list[Request]) -> KVCache:
        """A cache for these requests: the one that was kept, made longer if need be, or a new one."""
        length = max(len(r.prompt) + r.limit for r in requests)
        before = prologue_of(self.model)
        if self._cache is None or self._cache.filled != prologue.filled(self.model):
            fitting = max(1, self.cache_bytes // (length * max(1, self.fit.bytes_per_token)))
            self._cache = KVCache(min(self.rows, fitting, self.rows if self.reuse else len(requests)), length, before)
        elif length > self._cache.length:
            self._cache.grow(length)
        return self._cache


def context_of(model: nn.Module) -> int | None:
    """How many positions a model has, under any of the names that configurations use."""
    options = text_config(model).to_dict()
    named = [options.get(name) for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")]
    return next((limit for limit in named if isinstance(limit, int)), None)
