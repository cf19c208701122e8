"""What stands before every sequence: virtual tokens, or keys and values that every query reads, in each layout of a batch.

Virtual tokens have ids from the vocabulary's size on, and are computed like any other token. Keys and values are one more edge
of the forest in the packed layout, the first places of a cache, and explicit keys in the padded layout; real tokens begin
after as many positions as the prologue says. A gate (the log of a share, one number for each query) weighs the prologue's part
of the softmax: exp(score + gate). At 0 it is whole, at minus infinity it is gone.

"hone_padded" is the padded layout's attention where there are keys and values, registered with transformers' interfaces.

Shape legend: T tokens, R rows, L queries, M keys, P positions of the prologue, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from hone.core.types import Batch, Segment
from hone.tuning.base import Prologue, prologue_of

NAME = "hone_padded"


def lead(model: nn.Module) -> list[int]:
    """The ids that stand for the positions before every sequence, none without a prologue."""
    prologue = prologue_of(model)
    first = _vocabulary(model)
    return [] if prologue is None else list(range(first, first + prologue.length))


def filled(model: nn.Module) -> int:
    """How many first places of a cache hold keys and values before anything is computed."""
    prologue = prologue_of(model)
    return 0 if prologue is None or prologue.virtual_tokens else prologue.length


def positions(model: nn.Module) -> int:
    """The position of a sequence's first token."""
    prologue = prologue_of(model)
    return 0 if prologue is None else prologue.positions


def inputs(model: nn.Module, tokens: Tensor) -> dict[str, Any]:
    """What a forward gets for these ids, of any shape: they themselves, or embeddings where some may be virtual."""
    prologue = prologue_of(model)
    if prologue is None:
        return {"input_ids": tokens}
    if not prologue.virtual_tokens:
        return {"input_ids": tokens, "prologue": prologue}
    table, first = model.get_input_embeddings(), _vocabulary(model)  # type: ignore[operator]
    own = table(tokens.clamp(max=first - 1))
    prompt_PD = prologue.prompt().to(own.dtype)
    return {"inputs_embeds": torch.where((tokens >= first)[..., None], prompt_PD[(tokens - first).clamp(min=0)], own)}


def laid_out(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, tuple[Segment, ...]]:
    """Tokens, positions and segments of a batch: virtual tokens are computed once, as the root of all its sequences."""
    ids = lead(model)
    positions_T = batch.positions_T + positions(model)
    if not ids or filled(model):
        return batch.tokens_T, positions_T, batch.segments
    virtual_P = torch.tensor(ids, device=positions_T.device)
    root = Segment(0, len(ids), -1)
    segments = (root, *(Segment(start + len(ids), length, parent + 1) for start, length, parent in batch.segments))
    places_P = torch.arange(len(ids), device=positions_T.device)
    return torch.cat([virtual_P, batch.tokens_T]), torch.cat([places_P, positions_T]), segments


def in_rows(model: nn.Module, tokens_RL: Tensor, real_RL: Tensor) -> dict[str, Any]:
    """What a padded forward gets. Virtual tokens come first in every row; the caller drops as many columns as rows grew."""
    ids = lead(model)
    if not ids:
        return {"input_ids": tokens_RL, "attention_mask": real_RL.long()}
    if filled(model):
        place_L = torch.arange(tokens_RL.shape[1], device=tokens_RL.device) + positions(model)
        return inputs(model, tokens_RL) | {"attention_mask": real_RL.long(), "position_ids": place_L.expand_as(tokens_RL)}
    virtual_RP = torch.tensor(ids, device=tokens_RL.device).expand(len(tokens_RL), -1)
    mask = torch.cat([torch.ones_like(virtual_RP), real_RL.long()], 1)
    return inputs(model, torch.cat([virtual_RP, tokens_RL], 1)) | {"attention_mask": mask}


def attention_for(model: nn.Module, stock: str) -> str:
    """The attention of the padded layout."""
    return NAME if filled(model) else stock


def keys_values(prologue: Prologue, module: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (K, P, D) of the layer that this attention module belongs to."""
    layer = module.layer_idx
    assert isinstance(layer, int), "an attention module that does not know its layer"
    key, value = prologue.keys_values(layer)
    return key.to(like.device, like.dtype), value.to(like.device, like.dtype)


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kw: Any) -> tuple[Tensor, None]:
    """The function behind "hone_padded". query (R, H, L, D), key and value (R, K, M, D); returns (R, L, H, D).

    Plain products under autograd, for any mask, soft cap, sink and dropout: this layout is for models that need them.
    """
    bias = _bias(query, key, attention_mask)
    prologue: Prologue | None = kw.get("prologue")
    if prologue is not None:
        more = [x[None].expand(len(key), -1, -1, -1) for x in keys_values(prologue, module, key)]
        key, value = torch.cat([more[0], key], 2), torch.cat([more[1], value], 2)
        gate_RL = kw.get("prologue_gate")
        share = bias.new_zeros(*bias.shape[:3], prologue.length)
        bias = torch.cat([share if gate_RL is None else share + gate_RL[:, None, :, None], bias], -1)
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scores = (query @ key.mT).to(bias.dtype) * (kw.get("scaling") or query.shape[-1] ** -0.5)
    if kw.get("softcap") is not None:
        scores = kw["softcap"] * torch.tanh(scores / kw["softcap"])
    scores, sinks_H = scores + bias, kw.get("s_aux")
    if sinks_H is not None:
        scores = torch.cat([scores, sinks_H.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    shares = scores.softmax(-1)[..., : key.shape[2]].to(value.dtype)
    out = torch.dropout(shares, kw.get("dropout") or 0.0, train=True) @ value
    return out.transpose(1, 2), None


def _bias(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where a query may look and minus infinity elsewhere, (R or 1, 1, L, M), in at least fp32. No mask means causal."""
    queries, keys = query.shape[2], key.shape[2]
    wide = torch.promote_types(query.dtype, torch.float32)
    if mask is None:
        seen = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)[None, None]
        mask = seen.expand(len(query), -1, -1, -1)
    if mask.dtype != torch.bool:
        return mask[..., :keys].to(wide)
    return torch.zeros(mask.shape, dtype=wide, device=mask.device).masked_fill_(~mask, float("-inf"))


def _vocabulary(model: nn.Module) -> int:
    """Rows of the embedding: the first id that is no token."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    return weight.shape[0]


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
