"""Attention over a forest of segments: each edge is one stock flash call, and the pieces merge by log-sum-exp.

A segment attends to itself causally and to all its ancestors fully. Root segments of like length run as one batched
call; a child adds one call for each ancestor. The backward gives the stock flash backward of every edge the *global*
output and log-sum-exp, which is exact (arXiv 2310.01889 uses the same identity). No mask is ever built.

Registered once with transformers' `AttentionInterface` as "hone"; the plan arrives as the keyword `segments`. Keys and values
of a prologue are one more edge, from all queries; its gate shifts their scores, so it shifts the log-sum-exp of that edge.

Shape legend: T tokens, P positions of a prologue, H query heads, K key heads, D head size, B segments of a bucket, L their
padded length.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from hone.core.errors import HoneError
from hone.core.types import Segment
from hone.models.kernels import short_attention
from hone.models.prologue import keys_values
from hone.tuning.arithmetic import working
from hone.tuning.base import Prologue

NAME = "hone"
BUCKET = 32
"""Segments whose lengths round up to the same multiple of this share one call."""

Three = tuple[Tensor, Tensor, Tensor]
"""q, k and v, or their gradients."""
Four = tuple[Tensor, Tensor, Tensor, Tensor]
"""q, k, v and the gradient of the values that came out."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Segments that attend to themselves in one causal call. Padding sits at the end, where causal queries never look."""

    index_BL: Tensor
    """Index into T; padding repeats the segment's last token."""
    place_T: Tensor
    """Index into the flattened (B, L) grid of every real token."""
    tokens_T: Tensor
    """The same tokens' indices into T."""
    span: tuple[int, int] | None
    """(start, stop) when the bucket is one unpadded stretch of T and needs no gather."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Queries of a stretch of T that read all keys of an ancestor."""

    query: slice
    key: slice


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """What attention must do for one batch, worked out once and used by every layer."""

    buckets: tuple[Bucket, ...]
    edges: tuple[Edge, ...]
    longest: int
    """Tokens on the longest path from a root to a leaf."""


def plan(segments: tuple[Segment, ...], device: torch.device | str = "cpu") -> AttentionPlan:
    """Group segments into calls: causal ones by length, and one full call for each run of siblings and ancestor."""
    by_length: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        by_length[-(-segment.length // BUCKET)].append(segment)
    buckets = tuple(_bucket(members, device) for members in by_length.values())
    depth = [0] * len(segments)
    for i, segment in enumerate(segments):
        depth[i] = segment.length + (depth[segment.parent] if segment.parent >= 0 else 0)
    return AttentionPlan(buckets, tuple(_edges(segments)), max(depth, default=0))


def _bucket(members: list[Segment], device: torch.device | str) -> Bucket:
    width = max(segment.length for segment in members)
    offset_L = torch.arange(width)
    start_B = torch.tensor([segment.start for segment in members])
    length_B = torch.tensor([segment.length for segment in members])
    index_BL = start_B[:, None] + torch.minimum(offset_L[None], length_B[:, None] - 1)
    place_T = (offset_L[None] < length_B[:, None]).flatten().nonzero()[:, 0]
    span = (members[0].start, members[0].start + width) if len(members) == 1 else None
    index_BL = index_BL.to(device)
    place_T = place_T.to(device)
    return Bucket(index_BL, place_T, index_BL.flatten()[place_T], span)


def _edges(segments: tuple[Segment, ...]) -> list[Edge]:
    """Siblings that lie side by side read their ancestor in one call."""
    runs: list[tuple[int, int, int]] = []
    for segment in segments:
        ancestor = segment.parent
        while ancestor >= 0:
            runs.append((ancestor, segment.start, segment.start + segment.length))
            ancestor = segments[ancestor].parent
    edges: list[Edge] = []
    for ancestor, start, stop in sorted(runs):
        key = slice(segments[ancestor].start, segments[ancestor].start + segments[ancestor].length)
        if edges and edges[-1].key == key and edges[-1].query.stop == start:
            edges[-1] = Edge(slice(edges[-1].query.start, stop), key)
        else:
            edges.append(Edge(slice(start, stop), key))
    return edges


class ForestAttention(torch.autograd.Function):
    """q (H, T, D), k and v (K, T + P, D) to the attended values (H, T, D), all of one forest.

    Keys beyond the queries are a prologue: every query reads them, with `gate_T` (or nothing) added to their scores.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float, gate_T: Tensor | None = None) -> Tensor:
        out, lse = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
        for bucket in plan.buckets:
            o, l = _flash(_take(q, bucket), _take(k, bucket), _take(v, bucket), True, scale)
            _put(out, bucket, o)
            _put(lse, bucket, l)
        for edge in plan.edges:
            _merge(out, lse, edge, (q, k, v), scale)
        for edge in _prologue_edge(q, k):
            _merge(out, lse, edge, (q, k, v), scale, gate_T)
        ctx.save_for_backward(q, k, v, gate_T, out, lse)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, gate_T, out, lse = ctx.saved_tensors
        dq, dk, dv, d_gate_T = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None
        for bucket in ctx.plan.buckets:
            taken = (_take(q, bucket), _take(k, bucket), _take(v, bucket))
            grad_B = _take(grad, bucket, zero_padding=True)
            pieces = _flash_backward(grad_B, taken, _take(out, bucket), _take_rows(lse, bucket), True, ctx.scale)
            for total, piece in zip((dq, dk, dv), pieces, strict=True):
                _put(total, bucket, piece)
        for edge in ctx.plan.edges:
            _backward_edge((dq, dk, dv), edge, (q, k, v, grad), (out, lse), ctx.scale)
        for edge in _prologue_edge(q, k):
            dk[:, edge.key], dv[:, edge.key] = 0, 0
            _backward_edge((dq, dk, dv), edge, (q, k, v, grad), (out, lse if gate_T is None else lse - gate_T), ctx.scale)
            if gate_T is not None and ctx.needs_input_grad[5]:
                d_gate_T = _gate_gradient((q, k, v, grad), gate_T, (out, lse), ctx.scale)
        return dq, dk, dv, None, None, d_gate_T


def _prologue_edge(q: Tensor, k: Tensor) -> list[Edge]:
    """The edge from all queries to the keys beyond them, if there are any."""
    return [Edge(slice(0, q.shape[1]), slice(q.shape[1], k.shape[1]))] if k.shape[1] > q.shape[1] else []


def _merge(out: Tensor, lse: Tensor, edge: Edge, qkv: Three, scale: float, gate_T: Tensor | None = None) -> None:
    """Fold one ancestor's values into the queries that read it."""
    q, k, v = qkv
    at, to = edge.query, edge.key
    o, l = _flash(q[None, :, at], k[None, :, to], v[None, :, to], False, scale)
    theirs = l[0] if gate_T is None else l[0] + gate_T
    total = torch.logaddexp(lse[:, at], theirs)
    kept, added = (lse[:, at] - total).exp()[..., None], (theirs - total).exp()[..., None]
    out[:, at] = (out[:, at] * kept + o[0] * added).to(out.dtype)
    lse[:, at] = total


def _backward_edge(totals: Three, edge: Edge, given: Four, done: tuple[Tensor, Tensor], scale: float) -> None:
    """Add what one edge contributes to the gradients of q, k and v. `done` is the global output and log-sum-exp."""
    q, k, v, grad = given
    at, to = edge.query, edge.key
    taken = (q[None, :, at], k[None, :, to], v[None, :, to])
    pieces = _flash_backward(grad[None, :, at], taken, done[0][None, :, at], done[1][None, :, at], False, scale)
    for total, piece, place in zip(totals, pieces, (at, to, to), strict=True):
        total[:, place] += piece[0]


def _gate_gradient(given: Four, gate_T: Tensor, done: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """The prologue's share of each query, times how much better its values are than the whole output."""
    q, k, v, grad = given
    out, lse = done
    past = slice(q.shape[1], k.shape[1])
    o, l = _flash(q[None], k[None, :, past], v[None, :, past], False, scale)
    share_HT = (l[0] + gate_T - lse).exp()
    gain_HT = torch.linalg.vecdot(grad.to(lse.dtype), o[0].to(lse.dtype) - out.to(lse.dtype))
    return (share_HT * gain_HT).sum(0)


def _take(x: Tensor, bucket: Bucket, *, zero_padding: bool = False) -> Tensor:
    """(H, T, D) to (B, H, L, D)."""
    if bucket.span is not None:
        return x[None, :, bucket.span[0] : bucket.span[1]]
    batch, length = bucket.index_BL.shape
    if zero_padding:
        rows = x.new_zeros(batch * length, x.shape[0], x.shape[2])
        rows[bucket.place_T] = x.transpose(0, 1)[bucket.tokens_T]
    else:
        rows = x.transpose(0, 1).index_select(0, bucket.index_BL.flatten())
    return rows.view(batch, length, x.shape[0], x.shape[2]).transpose(1, 2)


def _take_rows(x: Tensor, bucket: Bucket) -> Tensor:
    """(H, T) to (B, H, L)."""
    return x[:, bucket.index_BL].transpose(0, 1).contiguous()


def _put(total: Tensor, bucket: Bucket, piece: Tensor) -> None:
    """Write (B, H, L, ...) back to the (H, T, ...) places that it came from; padding is forgotten."""
    if bucket.span is not None:
        total[:, bucket.span[0] : bucket.span[1]] = piece[0]
        return
    flat = piece.transpose(1, 2).flatten(0, 1)
    total.transpose(0, 1)[bucket.tokens_T] = flat[bucket.place_T].to(total.dtype)


def _group(x: Tensor, heads: int) -> Tensor:
    """Repeat key heads for grouped queries: (B, K, L, D) to (B, H, L, D)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _ungroup(x: Tensor, heads: int) -> Tensor:
    """Sum the gradients of the query heads that shared a key head."""
    return x if x.shape[1] == heads else x.unflatten(1, (heads, -1)).sum(2)


def _flash(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Attended values (B, H, L, D) and their log-sum-exp (B, H, L) by the device's best kernel."""
    wide = working(q)
    if wide != q.dtype:
        out, lse = _flash(q.to(wide), k.to(wide), v.to(wide), causal, scale)
        return out.to(q.dtype), lse
    if short_attention.suits(q, k):
        return short_attention.forward(q, k, v, causal, scale)
    k, v = _group(k, q.shape[1]), _group(v, q.shape[1])
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    found = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    return found[0], found[1]


def _flash_backward(
    grad: Tensor, qkv: tuple[Tensor, Tensor, Tensor], out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, given the values and the log-sum-exp over all keys of each query."""
    q, k, v = qkv
    wide = working(q)
    if wide != q.dtype:
        dq, dk, dv = _flash_backward(grad.to(wide), (q.to(wide), k.to(wide), v.to(wide)), out.to(wide), lse, causal, scale)
        return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype)
    if short_attention.suits(q, k):
        return short_attention.backward(grad, qkv, out, lse, causal, scale)
    heads, lse = k.shape[1], lse.contiguous()
    k, v = _group(k, q.shape[1]), _group(v, q.shape[1])
    if q.device.type == "cpu":
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, lse, 0.0, causal, scale=scale)
    else:
        none, seed = None, torch.zeros((), dtype=torch.long, device=q.device)
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_backward(
            grad, q, k, v, out, lse, none, none, q.shape[2], k.shape[2], 0.0, causal, seed, seed, scale=scale
        )
    return dq, _ungroup(dk, heads), _ungroup(dv, heads)


@torch.compiler.disable
def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kw: Any) -> tuple[Tensor, None]:
    """The function behind the name "hone". query (1, H, T, D); returns (1, T, H, D).

    Raises M010 for what a forest cannot honour (a window shorter than the path, soft-capping, sinks, dropout): such
    batches take the padded layout instead, they are never computed wrongly.
    """
    forest: AttentionPlan | None = kw.get("segments")
    if forest is None:
        raise HoneError("M010", "attention 'hone' was called without segments", fix="use hone's Policy or Sampler to run this model")
    prologue: Prologue | None = kw.get("prologue")
    longest = forest.longest + (0 if prologue is None else prologue.positions)
    window = kw.get("sliding_window")
    if window is not None and window < longest:
        raise HoneError("M010", f"a sliding window of {window} is shorter than the longest sequence ({longest})")
    for option in ("softcap", "s_aux", "position_bias"):
        if kw.get(option) is not None:
            raise HoneError("M010", f"this model's attention uses '{option}'")
    if kw.get("dropout"):
        raise HoneError("M010", "this model trains with attention dropout")
    scale = kw.get("scaling") or query.shape[-1] ** -0.5
    k, v, gate_T = key[0], value[0], None
    if prologue is not None:
        more = keys_values(prologue, module, key)
        k, v, gate_1T = torch.cat([k, more[0]], 1), torch.cat([v, more[1]], 1), kw.get("prologue_gate")
        gate_T = None if gate_1T is None else gate_1T[0].to(torch.promote_types(k.dtype, torch.float32))
    out = ForestAttention.apply(query[0], k, v, forest, scale, gate_T)
    return out.transpose(0, 1)[None], None


AttentionInterface.register(NAME, attend)
