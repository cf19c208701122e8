"""Text from models that our cache does not fit: their own attention and their own cache, on rows of one length.

Shape legend: B rows, T tokens so far, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hone.models import prologue
from hone.models.heads import head_of
from hone.rollout.answer import Request

Choose = Callable[[Sequence[Request], Tensor], None]
"""Adds a token to each request that is not done, given logits (B, V)."""


@torch.inference_mode()
def write_with_stock(model: nn.Module, requests: list[Request], choose: Choose) -> None:
    """Write answers to prompts of one length, all at once; rows that are done wait for the last.

    Models without a cache in their output read everything again for every token.
    """
    head = head_of(model)
    device = head.weight_VD.device
    own, start = prologue.filled(model), prologue.positions(model)
    tokens_BT = torch.tensor([request.prompt[own:] for request in requests], device=device)
    cache: dict[str, Any] = {}
    while True:
        places = {"position_ids": torch.arange(tokens_BT.shape[1], device=device).expand_as(tokens_BT) + start} if own else {}
        out = model.base_model(**prologue.inputs(model, tokens_BT), use_cache=True, **places, **cache)  # type: ignore[operator]
        choose(requests, head.logits(out.last_hidden_state[:, -1]))
        if all(request.done for request in requests):
            return
        cache = {"past_key_values": out["past_key_values"]} if out.get("past_key_values") is not None else {}
        new_B1 = torch.tensor([[request.tokens[-1]] for request in requests], device=device)
        start += tokens_BT.shape[1] if cache else 0
        tokens_BT = new_B1 if cache else torch.cat([tokens_BT, new_B1], 1)
