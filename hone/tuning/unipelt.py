"""UniPELT (arXiv 2110.07577): adapter, prefix and LoRA together, each weighed by a gate that looks at the token alone.

The known implementations average a gate over the whole sequence, so a token's gate depends on tokens that come after it: such
a model cannot be run with a cache, and learns to look ahead. Here a gate is a function of one token's hidden state. For adapter
and LoRA it multiplies the change. For the prefix it multiplies the prefix's share of the softmax: its log is added to the
scores of the prefix's keys, so a gate of 0 is attention without a prefix and a gate of 1 is prefix tuning, exactly.

Shape legend: T tokens (of any leading shape), D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from hone.core.config import settings
from hone.tuning.adapter import Activation, Bottleneck, adapter_count, input_of, output_of, with_output
from hone.tuning.anatomy import attentions, blocks, queries_and_values
from hone.tuning.base import METHODS, About, Beside, Tuning
from hone.tuning.prefix import Prefix, keys_values_of, wide
from hone.tuning.shapes import Shapes


class Gate(nn.Module):
    """sigmoid(w . x + b) for each token. It starts at one half everywhere."""

    def __init__(self, size: int, like: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size).to(**wide(like)))
        self.bias = nn.Parameter(torch.zeros(()).to(**wide(like)))

    def logit(self, x: Tensor) -> Tensor:
        """(T,) in the type of the gate."""
        return x.to(self.weight.dtype) @ self.weight + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Shares (T, 1), in the type of the hidden states (T, D)."""
        return torch.sigmoid(self.logit(x)).to(x.dtype)[..., None]


class GatedAttention(Beside):
    """An attention that says how much each of its queries minds the prefix."""

    def __init__(self, base: nn.Module, gate: Gate) -> None:
        super().__init__(base)
        self.gate = gate

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.active:
            return self.base(*args, **kwargs)
        return self.base(*args, **kwargs, prologue_gate=nn.functional.logsigmoid(self.gate.logit(input_of(args, kwargs))))


class GatedAdapter(Beside):
    """A part of a block with an adapter after it (`own_input` false) or LoRA beside it (true), weighed by what it was fed."""

    def __init__(self, base: nn.Module, adapter: Bottleneck, gate: Gate | None, *, own_input: bool) -> None:
        super().__init__(base)
        self.adapter, self.gate, self.own_input = adapter, gate, own_input

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.base(*args, **kwargs)
        if not self.active:
            return found
        out, fed = output_of(found), input_of(args, kwargs)
        change = self.adapter(fed if self.own_input else out)
        return with_output(found, out + (change if self.gate is None else self.gate(fed) * change))


@METHODS.add("unipelt")
@settings
class UniPelt(Tuning):
    """Adapter, prefix and LoRA under gates that learn which of them a token needs; made for few examples."""

    about: ClassVar[About] = About(
        when="a few hundred examples, and no idea which method suits the task",
        paper="2110.07577", unmergeable="its gates change from token to token", learning_rate=5e-4, starts_as_base=False,
    )  # fmt: skip

    length: Annotated[int, Ge(1)] = 10
    """Positions of the prefix."""
    size: Annotated[int, Ge(1)] = 48
    """Width of the adapters after the feed-forward networks."""
    rank: Annotated[int, Ge(1)] = 8
    """Rank of LoRA on queries and values."""
    alpha: Annotated[float, Ge(0)] = 16.0
    """Scale of LoRA is alpha / rank."""
    activation: Activation = "relu"
    """The nonlinearity inside the adapters."""
    text: str | None = None
    """Words that the prefix starts from."""
    gate: bool = True
    """Whether the three are weighed; without, all of them take part in full."""

    @property
    def prefix(self) -> Prefix:
        """The prefix alone."""
        return Prefix(length=self.length, text=self.text)

    def attach(self, model: nn.Module, *, seed: int) -> None:
        self.prefix.attach(model, seed=seed)
        keys_values_of(model).positions = 0
        like, generator = next(model.get_input_embeddings().parameters()), torch.Generator().manual_seed(seed + 1)  # type: ignore[operator]
        config: Any = model.config
        hidden = config.get_text_config().hidden_size
        linears = Shapes.of(model).linears
        for block in blocks(model):
            gates = [Gate(hidden, like) if self.gate else None for _ in range(3)]
            adapter = Bottleneck(hidden, self.size, hidden, activation=self.activation).start(like, generator)
            _put(model, block.feed_forward, GatedAdapter(model.get_submodule(block.feed_forward), adapter, gates[0], own_input=False))
            for path in queries_and_values(linears, block.attention):
                outputs, inputs = linears[path]
                low = Bottleneck(inputs, self.rank, outputs, activation=None, scale=self.alpha / self.rank, bias=False)
                _put(model, path, GatedAdapter(model.get_submodule(path), low.start(like, generator), gates[1], own_input=True))
            if gates[2] is not None:
                _put(model, block.attention, GatedAttention(model.get_submodule(block.attention), gates[2]))

    def prime(self, model: nn.Module, encode: Callable[[str], list[int]]) -> None:
        self.prefix.prime(model, encode)

    def count(self, shapes: Shapes) -> int:
        prefix, adapter = self.prefix.count(shapes), shapes.layers * adapter_count(shapes.hidden, self.size)
        gates = 3 * shapes.layers * (shapes.hidden + 1) * self.gate
        return prefix + adapter + gates + self.low_rank_count(shapes)

    def low_rank_count(self, shapes: Shapes) -> int:
        """Parameters of LoRA alone."""
        found = [path for attention in attentions(shapes.linears) for path in queries_and_values(shapes.linears, attention)]
        return sum(self.rank * sum(shapes.linears[path]) for path in found)


def _put(model: nn.Module, path: str, new: nn.Module) -> None:
    """Set one part of the model."""
    parent, _, leaf = path.rpartition(".")
    new.train(model.training)
    setattr(model.get_submodule(parent), leaf, new)
