"""How likely a frozen head can make a token at best, whatever an adapter does below it.

Rows of a head that training never touched lie close together, so that their tokens share what probability there is: no
hidden state singles one of them out, and the loss on it cannot fall under the logarithm of their number.

Shape legend: V vocabulary, D hidden size, K rows that compete.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from hone.models.heads import head_of, text_config
from hone.models.logprob import Head

NEAREST = 1024
"""Rows that a token is compared with: the nearest ones decide; the rest could only lower what is found."""
STEPS, RATE = 40, 0.1
EVEN, SURE = 0.5, 0.9
"""A token is mute if its best chance is below the first, in a head that can say some other token with the second."""
OTHERS = 24
BLOCK = 8192
"""Rows of the table that are widened to fp32 at a time."""


def mute(model: nn.Module, tokens: Iterable[int]) -> dict[int, float]:
    """Those of some tokens that no hidden state makes the head say, with their best probability. None in a head that is untrained."""
    asked = list(tokens)
    silent = {token: chance for token, chance in reach(model, asked).items() if chance < EVEN}
    if not silent:
        return {}
    size = len(head_of(model).weight_VD)
    others = (token for token in range(0, size, max(1, size // OTHERS)) if token not in asked)
    return silent if any(reach(model, [token])[token] > SURE for token in others) else {}


def reach(model: nn.Module, tokens: Iterable[int]) -> dict[int, float]:
    """The largest probability that the head can give each token, over all hidden states that the last norm lets through."""
    head, norm = head_of(model), last_norm(model)
    return {token: _best(head, norm, token) for token in tokens}


def last_norm(model: nn.Module) -> nn.Module:
    """What every hidden state passes before the head: the last norm beside the layers, which sets its length."""
    size = text_config(model).hidden_size
    beside = [module for module in model.base_model.children() if not isinstance(module, nn.ModuleList | nn.Embedding)]  # type: ignore[union-attr]
    norms = [module for module in beside if [tuple(p.shape) for p in module.parameters()] in ([(size,)], [(size,), (size,)])]
    return norms[-1] if norms else nn.LayerNorm(size, elementwise_affine=False)


def _best(head: Head, norm: nn.Module, token: int) -> float:
    weight_VD = head.weight_VD.detach()
    blocks = weight_VD.split(BLOCK)
    distance_V = torch.cat([(block.float() - weight_VD[token].float()).norm(dim=1) for block in blocks])
    middle_D = torch.stack([block.float().sum(0) for block in blocks]).sum(0) / len(weight_VD)
    rows_K = distance_V.topk(min(NEAREST, len(distance_V)), largest=False).indices
    some = replace(head, weight_VD=weight_VD[rows_K].float(), bias_V=None if head.bias_V is None else head.bias_V.detach()[rows_K].float())
    place = int((rows_K == token).nonzero()[0, 0])
    weight = next(norm.parameters(), weight_VD)
    way_D = some.weight_VD[place] - middle_D
    x_D = nn.Parameter(way_D / way_D.norm().clamp(min=1e-6) * len(way_D) ** 0.5)
    with torch.enable_grad():
        optimiser, best = torch.optim.Adam([x_D], lr=RATE), -torch.inf
        for _ in range(STEPS):
            logp = _logp(some, norm, x_D.to(weight.dtype), place)
            best = max(best, float(logp.detach()))
            (x_D.grad,) = torch.autograd.grad(-logp, x_D)
            optimiser.step()
    return float(torch.tensor(best).exp())


def _logp(head: Head, norm: nn.Module, x_D: Tensor, place: int) -> Tensor:
    return head.logits(norm(x_D[None]).float()).log_softmax(-1)[0, place]
