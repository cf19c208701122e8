"""Keys and values kept between tokens: a preallocated cache, the attention that reads it, and a forward through both.

Registered with transformers' `AttentionInterface` as "hone_decode". Transformers builds no mask for a name that it does
not know, so all masking is done here, by position: causal, windows, soft caps and sinks, as the model asks for them.
A probe compares the result with the model's own; what does not agree is never used.

Shape legend: R rows of the cache, B rows of a forward, Q new tokens of a row, P new tokens without padding,
L positions, H query heads, K key heads, G query heads that share a key head, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from hone.core.errors import HoneError
from hone.models.heads import head_of, text_config
from hone.models.logprob import Head
from hone.models.policy import using_attention
from hone.models.prologue import attention_for, in_rows, inputs, keys_values, lead, positions
from hone.tuning.base import Prologue, prologue_of

NAME = "hone_decode"
SCORES = 1 << 24
"""Attention scores held at a time where a kernel cannot be used."""
WORTH = 16
"""Tokens in common with another row from which on they are copied instead of computed."""


class KVCache:
    """Preallocated keys and values of R rows, each of up to `length` positions, for every attention layer.

    `held` says which tokens each row holds, from position 0 on; `windows` are the sliding windows that layers ask for.
    The keys and values of a prologue lie in the first `filled` places of every row from the start, seen by all queries.
    """

    def __init__(self, rows: int, length: int, prologue: Prologue | None = None) -> None:
        self.rows, self.length = rows, length
        self.prologue = None if prologue is None or prologue.virtual_tokens else prologue
        self.filled = 0 if self.prologue is None else self.prologue.length
        self.held: list[list[int]] = [[] for _ in range(rows)]
        self.windows: dict[nn.Module, int] = {}
        self._layers: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def layer(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, K, L, D) of one attention layer, made when it first speaks. Unwritten places hold zeros."""
        if module not in self._layers:
            keys, values = (x.new_zeros(self.rows, x.shape[1], self.length, x.shape[3]) for x in (key, value))
            if self.prologue is not None:
                keys[:, :, : self.filled], values[:, :, : self.filled] = keys_values(self.prologue, module, key)
            self._layers[module] = keys, values
        return self._layers[module]

    def hold(self, rows: Sequence[int], tokens: Sequence[Sequence[int]], starts: Sequence[int]) -> None:
        """Note that these tokens have been computed, each row's from its start on."""
        for row, new, start in zip(rows, tokens, starts, strict=True):
            self.held[row][start:] = new

    @torch.inference_mode()
    def copy(self, source: int, target: int, length: int) -> None:
        """Let `target` hold the first `length` tokens of `source`."""
        for pair in self._layers.values():
            for kept in pair:
                kept[target, :, :length] = kept[source, :, :length]
        self.held[target] = self.held[source][:length]

    def recall(self, row: int, tokens: Sequence[int]) -> int:
        """Fill `row` with the longest beginning of `tokens` that any row holds; return its length, always short of all.

        A few tokens are not worth the separate forward that going on from them takes.
        """
        length, best = max((common_prefix(held, tokens[:-1]), i == row, i) for i, held in enumerate(self.held))[::2]
        length = length if length >= self.filled + WORTH else self.filled
        if length > self.filled and best != row:
            self.copy(best, row, length)
        self.held[row] = list(tokens[:length])
        return length

    @torch.inference_mode()
    def grow(self, length: int) -> None:
        """Make room for more positions, keeping what is held."""
        for module, pair in self._layers.items():
            more = [torch.nn.functional.pad(kept, (0, 0, 0, length - self.length)) for kept in pair]
            self._layers[module] = more[0], more[1]
        self.length = length

    @property
    def bytes_per_token(self) -> int:
        """What one position of one row costs, over all layers."""
        return sum(x.shape[1] * x.shape[3] * x.element_size() for pair in self._layers.values() for x in pair)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first tokens two lists share, by halving, so that long lists are compared at C speed."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


@dataclass(frozen=True, slots=True)
class Pass:
    """Where the new tokens of one forward belong, worked out once and used by every layer."""

    cache: KVCache
    positions_BQ: Tensor
    """Padding repeats a row's last position, so that no table of positions is overrun."""
    rows: slice | Tensor
    """Rows of the cache that are read."""
    row_P: Tensor
    position_P: Tensor
    real_P: Tensor | None
    """Index of each new token in the flattened (B, Q) grid; None where nothing is padded."""
    last_B: Tensor
    """Column of each row's last token."""
    width: int
    """Positions that are read."""
    fresh: bool
    """All rows start at position 0: their keys are the new ones, and the cache need not be read."""
    _bias: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    def store(self, module: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values (B, K, Q, D); return all that the rows hold now, (B, K, width, D)."""
        kept = self.cache.layer(module, key, value)
        for old, new in zip(kept, (key, value), strict=True):
            flat = new[:, :, 0] if new.shape[2] == 1 else new.transpose(1, 2).flatten(0, 1)
            old[self.row_P, :, self.position_P] = flat if self.real_P is None else flat[self.real_P]
        if self.fresh:
            return key, value
        if isinstance(self.rows, slice):
            return kept[0][self.rows, :, : self.width], kept[1][self.rows, :, : self.width]
        return kept[0][:, :, : self.width][self.rows], kept[1][:, :, : self.width][self.rows]

    def gated(self, bias: Tensor, gate_BQ: Tensor, shared: int) -> Tensor:
        """A bias whose part for the prologue is weighed for each query."""
        gate_BQ = gate_BQ.repeat(1, shared if gate_BQ.shape[1] > 1 else 1).to(bias.dtype)
        return torch.cat([bias[..., : self.cache.filled] + gate_BQ[:, None, :, None], bias[..., self.cache.filled :]], -1)

    def bias(self, window: int | None, shared: int, like: Tensor) -> Tensor:
        """Zero where a query may look, minus infinity elsewhere, (B, 1, GQ, L) or, for single tokens, (B, 1, 1, L)."""
        if (window, shared) not in self._bias:
            key_L = torch.arange(self.width, device=like.device)
            query_BQ1 = self.positions_BQ[..., None]
            hidden = key_L > query_BQ1
            if window is not None:
                hidden |= (key_L <= query_BQ1 - window) & (key_L >= self.cache.filled)
            bias_BQL = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden, float("-inf"))
            self._bias[window, shared] = bias_BQL.repeat(1, shared if hidden.shape[1] > 1 else 1, 1)[:, None]
        return self._bias[window, shared]


def _pass(cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]], starts: Sequence[int], device: torch.device) -> Pass:
    lengths = [len(new) for new in tokens]
    columns, width = max(lengths), max(start + length for start, length in zip(starts, lengths, strict=True))
    assert width <= cache.length, "the cache is too short for these rows"
    row_B, start_B, length_B = torch.tensor([list(rows), list(starts), lengths], device=device)
    column_Q = torch.arange(columns, device=device)
    positions_BQ = start_B[:, None] + torch.minimum(column_Q, length_B[:, None] - 1)
    row_P, position_P, real_P = row_B[:, None].expand_as(positions_BQ).flatten(), positions_BQ.flatten(), None
    if min(lengths) < columns:
        real_P = (column_Q < length_B[:, None]).flatten().nonzero()[:, 0]
        row_P, position_P = row_P[real_P], position_P[real_P]
    read = slice(rows[0], rows[-1] + 1) if isinstance(rows, range) else row_B
    return Pass(cache, positions_BQ, read, row_P, position_P, real_P, length_B - 1, width, not any(starts))


@torch.inference_mode()
def forward(
    model: nn.Module, head: Head, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]], starts: Sequence[int]
) -> Tensor:
    """Feed new tokens to rows of the cache, from their positions `starts` on; logits (B, V) after each row's last token.

    A `range` of rows is read in place, other choices of rows are gathered. Must run under `using_attention(model, NAME)`.
    """
    device = head.weight_VD.device
    at = _pass(cache, rows, tokens, starts, device)
    columns = at.positions_BQ.shape[1]
    tokens_BQ = torch.tensor([[*new, *[new[-1]] * (columns - len(new))] for new in tokens], device=device)
    virtual = any(start < len(lead(model)) for start in starts)
    given = inputs(model, tokens_BQ) if virtual else {"input_ids": tokens_BQ}
    places_BQ = at.positions_BQ - (cache.filled - positions(model) if cache.filled else 0)
    out = model.base_model(**given, position_ids=places_BQ, use_cache=False, decode=at)  # type: ignore[operator]
    cache.hold(rows, tokens, starts)
    hidden_BQD = out.last_hidden_state
    return head.logits(hidden_BQD[torch.arange(len(rows), device=device), at.last_B])


@torch.compiler.disable
def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kw: Any) -> tuple[Tensor, None]:
    """The function behind "hone_decode". query (B, H, Q, D), key and value (B, K, Q, D); returns (B, Q, H, D)."""
    at: Pass | None = kw.get("decode")
    if at is None:
        raise HoneError("M010", "attention 'hone_decode' was called without a cache", fix="use hone's Sampler to run this model")
    if kw.get("position_bias") is not None:
        raise HoneError("M010", "this model's attention uses 'position_bias'")
    window, softcap, sinks, scale = (kw.get(name) for name in ("sliding_window", "softcap", "s_aux", "scaling"))
    if window is not None:
        at.cache.windows[module] = window
        window = window if window < at.width else None
    keys, values = at.store(module, key, value)
    if at.fresh and window is None and softcap is None and sinks is None:
        grouped = query.shape[1] != key.shape[1]
        out = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=grouped)
    else:
        rule = Rule(scale or query.shape[-1] ** -0.5, softcap, sinks)
        shared = query.shape[1] // keys.shape[1]
        bias, gate_BQ = at.bias(window, shared, query), kw.get("prologue_gate")
        if gate_BQ is not None and at.cache.filled:
            bias = at.gated(bias, gate_BQ, shared)
        out = masked_attention(query, (keys, values), bias, rule)
    return out.transpose(1, 2), None


class Rule(NamedTuple):
    """How scores become shares: scale, then soft cap, then a share that each head's sink swallows."""

    scale: float
    softcap: float | None = None
    sinks_H: Tensor | None = None


def masked_attention(query: Tensor, kept: tuple[Tensor, Tensor], bias: Tensor, rule: Rule) -> Tensor:
    """query (B, H, Q, D) on keys and values (B, K, L, D). Query heads that share a key head become further queries of it."""
    batch, heads, queries, _ = query.shape
    keys, values = kept
    shared = heads // keys.shape[1]
    folded = query.reshape(batch, keys.shape[1], shared * queries, -1)
    if rule.softcap is None and rule.sinks_H is None:
        out = scaled_dot_product_attention(folded, keys, values, attn_mask=bias, scale=rule.scale)
    else:
        sink = None if rule.sinks_H is None else rule.sinks_H.view(1, -1, shared, 1).expand(-1, -1, -1, queries).flatten(2)
        out = _by_scores(folded, kept, bias.expand(-1, -1, shared * queries, -1), sink, rule)
    return out.reshape(batch, heads, queries, -1)


def _by_scores(q: Tensor, kept: tuple[Tensor, Tensor], bias: Tensor, sink: Tensor | None, rule: Rule) -> Tensor:
    """q (B, K, GQ, D), a few queries at a time. `sink` is (1, K, GQ) or None."""
    keys, values = kept
    size = max(1, SCORES // (q.shape[0] * q.shape[1] * keys.shape[2]))
    out = []
    for start in range(0, q.shape[2], size):
        at = slice(start, start + size)
        scores = (q[:, :, at] @ keys.mT).float().mul_(rule.scale)
        if rule.softcap is not None:
            scores.div_(rule.softcap).tanh_().mul_(rule.softcap)
        scores += bias[:, :, at]
        total = scores.logsumexp(-1)
        if sink is not None:
            total = torch.logaddexp(total, sink[:, :, at].float())
        out.append(scores.sub_(total[..., None]).exp_().to(values.dtype) @ values)
    return out[0] if len(out) == 1 else torch.cat(out, 2)


AttentionInterface.register(NAME, attend)


Read = Callable[[KVCache, Sequence[int], Sequence[Sequence[int]], Sequence[int]], Tensor]
"""Feeds new tokens to rows of a cache from their starts on, and returns logits (B, V) after each row's last token."""


class Fit(NamedTuple):
    """Whether and how far the cache can serve a model."""

    works: bool
    horizon: int | None = None
    """Positions up to which our attention is known to be the model's; None is without limit."""
    bytes_per_token: int = 0
    windows: Mapping[nn.Module, int] = MappingProxyType({})
    """Sliding windows, by attention layer."""
    quick: bool = False
    """Whether `hone.models.llama` writes for this model."""


@torch.no_grad()
def probe(model: nn.Module, stock: str) -> Fit:
    """Compare logits through the cache with the model's own."""
    cache = KVCache(2, 16 + len(lead(model)), prologue_of(model))
    try:
        with using_attention(model, NAME):
            works = agrees(model, stock, partial(forward, model, head_of(model)), cache)
    except (HoneError, TypeError, ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError):
        return Fit(False)
    return Fit(works, _horizon(model, cache.windows.values()), cache.bytes_per_token, cache.windows)


@torch.no_grad()
def agrees(model: nn.Module, stock: str, read: Read, cache: KVCache) -> bool:
    """Whether logits are the model's own on two rows of unlike lengths, fed in several portions to a cache of 2 x (16 + a prologue)."""
    device = next(model.parameters()).device
    size = text_config(model).vocab_size
    texts = [[(3 + 7 * i) % size for i in range(12)], [(5 + 11 * i) % size for i in range(7)]]
    training = model.training
    model.eval()
    try:
        own = torch.stack([_own(model, stock, torch.tensor([text], device=device)) for text in texts])
        ours = _in_portions(read, cache, texts, lead(model))
    finally:
        model.train(training)
    tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    return bool((own - ours).norm() <= tolerance * own.norm())


def _own(model: nn.Module, stock: str, tokens_1T: Tensor) -> Tensor:
    """The model's own logits (V,) after a text."""
    with using_attention(model, attention_for(model, stock)):
        if not lead(model):
            return model(input_ids=tokens_1T, use_cache=False).logits[0, -1].float()
        given = in_rows(model, tokens_1T, torch.ones_like(tokens_1T, dtype=torch.bool))
        hidden = model.base_model(**given, use_cache=False).last_hidden_state  # type: ignore[operator]
        return head_of(model).logits(hidden[:, -1])[0].float()


def _in_portions(read: Read, cache: KVCache, texts: list[list[int]], before: list[int]) -> Tensor:
    """A prefill with padding, two single tokens, and another prefill on top."""
    starts, ends, logits = [cache.filled, cache.filled], [len(before), len(before)], torch.empty(0)
    for lengths in ([6, 3], [1, 1], [1, 1], [4, 2]):
        ends = [end + length for end, length in zip(ends, lengths, strict=True)]
        new = [[*before, *text][start:end] for text, start, end in zip(texts, starts, ends, strict=True)]
        logits = read(cache, range(2), new, starts)
        starts = ends
    return logits.float()


def _horizon(model: nn.Module, windows: Iterable[int]) -> int | None:
    """A limit on what tokens can see that the configuration names, but that never arrived at the attention."""
    options = text_config(model).to_dict()
    limits = [options.get(name) for name in ("sliding_window", "attention_chunk_size")]
    unheard = [limit for limit in limits if isinstance(limit, int) and limit not in windows]
    return min(unheard, default=None)
