"""Attention over a forest of segments: each edge is one stock flash call, and the pieces merge by log-sum-exp.

A segment attends to itself causally and to all its ancestors fully. Root segments of like length run as one batched
call; a child adds one call for each ancestor. The backward gives the stock flash backward of every edge the *global*
output and log-sum-exp, which is exact (arXiv 2310.01889 uses the same identity). No mask is ever built.

Registered once with transformers' `AttentionInterface` as "hone"; the plan arrives as the keyword `segments`.

Shape legend: T tokens, H query heads, K key heads, D head size, B segments of a bucket, L their padded length.
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

NAME = "hone"
BUCKET = 32
"""Segments whose lengths round up to the same multiple of this share one call."""


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
    """q (H, T, D), k and v (K, T, D) to the attended values (H, T, D), all of one forest."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
        out, lse = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.promote_types(q.dtype, torch.float32))
        for bucket in plan.buckets:
            o, l = _flash(_take(q, bucket), _take(k, bucket), _take(v, bucket), True, scale)
            _put(out, bucket, o)
            _put(lse, bucket, l)
        for edge in plan.edges:
            _merge(out, lse, edge, (q, k, v), scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for bucket in ctx.plan.buckets:
            taken = (_take(q, bucket), _take(k, bucket), _take(v, bucket))
            grad_B = _take(grad, bucket, zero_padding=True)
            pieces = _flash_backward(grad_B, taken, _take(out, bucket), _take_rows(lse, bucket), True, ctx.scale)
            for total, piece in zip((dq, dk, dv), pieces, strict=True):
                _put(total, bucket, piece)
        for edge in ctx.plan.edges:
            at, to = edge.query, edge.key
            taken = (q[None, :, at], k[None, :, to], v[None, :, to])
            pieces = _flash_backward(grad[None, :, at], taken, out[None, :, at], lse[None, :, at], False, ctx.scale)
            dq[:, at] += pieces[0][0]
            dk[:, to] += pieces[1][0]
            dv[:, to] += pieces[2][0]
        return dq, dk, dv, None, None


def _merge(out: Tensor, lse: Tensor, edge: Edge, qkv: tuple[Tensor, Tensor, Tensor], scale: float) -> None:
    """Fold one ancestor's values into the queries that read it."""
    q, k, v = qkv
    at, to = edge.query, edge.key
    o, l = _flash(q[None, :, at], k[None, :, to], v[None, :, to], False, scale)
    total = torch.logaddexp(lse[:, at], l[0])
    mine, theirs = (lse[:, at] - total).exp()[..., None], (l[0] - total).exp()[..., None]
    out[:, at] = (out[:, at] * mine + o[0] * theirs).to(out.dtype)
    lse[:, at] = total


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
    window = kw.get("sliding_window")
    if window is not None and window < forest.longest:
        raise HoneError("M010", f"a sliding window of {window} is shorter than the longest sequence ({forest.longest})")
    for option in ("softcap", "s_aux", "position_bias"):
        if kw.get(option) is not None:
            raise HoneError("M010", f"this model's attention uses '{option}'")
    if kw.get("dropout"):
        raise HoneError("M010", "this model trains with attention dropout")
    scale = kw.get("scaling") or query.shape[-1] ** -0.5
    out = ForestAttention.apply(query[0], key[0], value[0], forest, scale)
    return out.transpose(0, 1)[None], None


AttentionInterface.register(NAME, attend)
