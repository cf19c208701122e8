"""How likely a frozen head can make a token at best, whatever an adapter does below it.

Rows of a head that training never touched lie close together, so that their tokens share what probability there is: no
hidden state singles one of them out, and the loss on it cannot fall under the logarithm of their number.

Shape legend: V vocabulary, D hidden size, K rows that compete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hone.models.heads import head_of, text_config

NEAREST = 1024
"""Rows that a token is compared with: the nearest ones decide; the rest could only lower what is found."""
STEPS, RATE = 40, 0.1
EVEN, SURE = 0.5, 0.9
"""A token is mute if its best chance is below the first, in a head that can say some other token with the second."""
OTHERS = 24
SLACK = 1.05
"""The gain of a norm is seen on one state, and a little off where that has a mean."""
HANDFUL = 32
"""Tokens whose bounds are computed together."""
BLOCK = 8192
"""Rows of the table that are widened to fp32 at a time."""


def mute(model: nn.Module, tokens: Iterable[int]) -> dict[int, float]:
    """Those of some tokens that no hidden state makes the head say, with what its probability never exceeds. None in a raw head."""
    asked, search = list(tokens), Search(model)
    silent = {token: chance for token, chance in search.highest(asked, enough=EVEN) if chance < EVEN}
    if not silent:
        return {}
    size = len(search.head.weight_VD)
    others = [token for token in range(0, size, max(1, size // OTHERS)) if token not in asked]
    return silent if any(chance > SURE for _, chance in search.highest(others, enough=SURE)) else {}


def reach(model: nn.Module, tokens: Iterable[int]) -> dict[int, float]:
    """The largest probability that the head can give each token, over all hidden states that the last norm lets through."""
    return dict(Search(model).highest(list(tokens)))


def last_norm(model: nn.Module) -> nn.Module:
    """What every hidden state passes before the head: the last norm beside the layers, which sets its length."""
    size = text_config(model).hidden_size
    beside = [module for module in model.base_model.children() if not isinstance(module, nn.ModuleList | nn.Embedding)]  # type: ignore[union-attr]
    norms = [module for module in beside if [tuple(p.shape) for p in module.parameters()] in ([(size,)], [(size,), (size,)])]
    return norms[-1] if norms else nn.LayerNorm(size, elementwise_affine=False)


class Search:
    """Climbs to the hidden state that a token is likeliest in."""

    def __init__(self, model: nn.Module) -> None:
        self.head, self.norm = head_of(model), last_norm(model)
        self.table_VD = self.head.weight_VD.detach()
        self.blocks = self.table_VD.split(BLOCK)
        self.middle_D = torch.stack([block.float().sum(0) for block in self.blocks]).sum(0) / len(self.table_VD)
        self.weight = next(self.norm.parameters(), self.table_VD)
        self.gain_D, self.shift_D = self._affine()

    @torch.no_grad()
    def _affine(self) -> tuple[Tensor, Tensor]:
        """What the norm multiplies by and adds, seen on a state that it need not change."""
        signs_D = torch.ones_like(self.middle_D)
        signs_D[::2] = -1
        up_D, down_D = (self.norm(sign.to(self.weight.dtype)[None])[0].float() for sign in (signs_D, -signs_D))
        return (up_D - down_D).abs() / 2, (up_D + down_D) / 2

    def highest(self, tokens: Sequence[int], *, enough: float = 0.0) -> Iterator[tuple[int, float]]:
        """Each token and its largest probability; with `enough`, not looked for beyond that, and only bounded where it is out of reach."""
        for token, gap_V in self.gaps(tokens):
            bound = 1 / float((-gap_V).exp().sum())
            if bound < enough:
                yield token, bound
                continue
            found = 0.0
            for chance in self._climb(token, gap_V):
                found = max(found, chance)
                if 0 < enough < found:
                    break
            yield token, found

    @torch.no_grad()
    def gaps(self, tokens: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """How far each token's logit can lie above each other one (V,): a state behind the norm is no longer than its gain allows."""
        for start in range(0, len(tokens), HANDFUL):
            some_K = torch.tensor(tokens[start : start + HANDFUL], device=self.table_VD.device)
            own_KD, shift_K1 = self._seen(self.table_VD[some_K]), self._shift(some_K)[:, None]
            parts, first = [], 0
            for block in self.blocks:
                rows_BD, shift_B = self._seen(block), self._shift(slice(first, first + len(block)))
                square_KB = own_KD.square().sum(1)[:, None] + rows_BD.square().sum(1) - 2 * own_KD @ rows_BD.t()
                parts.append(SLACK * len(self.middle_D) ** 0.5 * square_KB.clamp_(min=0).sqrt_() + shift_K1 - shift_B)
                first += len(block)
            gap_KV = abs(self.head.scale) * torch.cat(parts, 1)
            yield from zip(some_K.tolist(), gap_KV.clamp_(min=0) if self.head.softcap else gap_KV, strict=True)

    def _seen(self, rows_BD: Tensor) -> Tensor:
        """Rows as a state meets them, from the middle of the table, where squares cancel least."""
        return (rows_BD.float() - self.middle_D) * self.gain_D

    def _shift(self, rows: Tensor | slice) -> Tensor:
        """What the logits of rows are raised by, whatever the state."""
        raised_B = self.table_VD[rows].float() @ self.shift_D
        return raised_B if self.head.bias_V is None else raised_B + self.head.bias_V.detach()[rows].float()

    def _climb(self, token: int, gap_V: Tensor) -> Iterator[float]:
        """The token's probability after each step, among the rows that compete with it."""
        rows_K = gap_V.topk(min(NEAREST, len(gap_V)), largest=False).indices
        rows_K = torch.cat([rows_K[rows_K != token], rows_K.new_tensor([token])])
        bias_V = self.head.bias_V
        some = replace(
            self.head, weight_VD=self.table_VD[rows_K].float(), bias_V=None if bias_V is None else bias_V.detach()[rows_K].float()
        )
        way_D = some.weight_VD[-1] - self.middle_D
        x_D = nn.Parameter(way_D / way_D.norm().clamp(min=1e-6) * len(way_D) ** 0.5)
        optimiser = torch.optim.Adam([x_D], lr=RATE)
        for _ in range(STEPS):
            with torch.enable_grad():
                logp = some.logits(self.norm(x_D.to(self.weight.dtype)[None]).float()).log_softmax(-1)[0, -1]
            yield float(logp.detach().exp())
            (x_D.grad,) = torch.autograd.grad(-logp, x_D)
            optimiser.step()
