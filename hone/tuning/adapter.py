"""Bottleneck adapters: Houlsby (arXiv 1902.00751), Pfeiffer (2005.00247), parallel (2110.04366), and AdapterDrop (2010.11918).

An adapter is up(f(down(x))) with a residual. The up half starts at zero, so all start as the base. Since nothing of the base
moves, autograd records nothing below the first adapter: blocks without one cost no backward.

Shape legend: D hidden size, M bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning import folder as adapter_folder
from hone.tuning import whole
from hone.tuning.anatomy import Block, blocks, norm_count
from hone.tuning.base import METHODS, About, Beside, Tuning, replace, trainable
from hone.tuning.prefix import linear, wide
from hone.tuning.shapes import Shapes

Activation = Literal["relu", "gelu", "silu"]
FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
}
WHY = "a nonlinear layer stands between the layers of the base"


class Bottleneck(nn.Module):
    """scale * up(f(down(x))), kept in fp32 and cast where it is used. `activation` None and no biases make it LoRA's product."""

    def __init__(
        self, inputs: int, size: int, outputs: int, *, activation: Activation | None, scale: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__()
        self.activation, self.scale = activation, scale
        self.down = nn.utils.skip_init(nn.Linear, inputs, size, bias=bias)
        self.up = nn.utils.skip_init(nn.Linear, size, outputs, bias=bias)

    @torch.no_grad()
    def start(self, like: Tensor, generator: torch.Generator) -> Bottleneck:
        """Down at random as torch does it, up at zero, on the device of a weight."""
        fresh = linear(self.down.in_features, self.down.out_features, {}, generator)
        self.down.weight.copy_(fresh.weight)
        for parameter in (self.down.bias, *self.up.parameters()):
            if parameter is not None:
                parameter.zero_()
        return self.to(**wide(like))

    def forward(self, x: Tensor) -> Tensor:
        inner = _apply(self.down, x)
        out = _apply(self.up, inner if self.activation is None else FUNCTIONS[self.activation](inner))
        return out if self.scale == 1 else self.scale * out


def _apply(layer: nn.Linear, x: Tensor) -> Tensor:
    moved = {name: parameter.to(x.dtype) for name, parameter in layer.named_parameters()}
    return nn.functional.linear(x, moved["weight"], moved.get("bias"))


class Adapted(Beside):
    """A part of a block with an adapter after it, or beside it. `dropped` leaves the adapter out while training."""

    def __init__(self, base: nn.Module, adapter: Bottleneck, *, parallel: bool = False) -> None:
        super().__init__(base)
        self.adapter, self.parallel, self.dropped = adapter, parallel, False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.base(*args, **kwargs)
        if not self.active or (self.training and self.dropped):
            return found
        out = output_of(found)
        return with_output(found, out + self.adapter(input_of(args, kwargs) if self.parallel else out))


def input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a part of a block was called with."""
    found: Tensor = args[0] if args else kwargs["hidden_states"]
    return found


def output_of(found: Any) -> Tensor:
    """The hidden states that a part of a block returned; attention and experts return more beside them."""
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out


def with_output(found: Any, out: Tensor) -> Any:
    """The same answer with other hidden states."""
    return (out, *found[1:]) if isinstance(found, tuple) else out


class AdapterMethod(Tuning):
    """What the placements have in common: which parts of a block get an adapter, and how it is built."""

    after_attention: ClassVar[bool] = False
    beside: ClassVar[bool] = False
    reduction: ClassVar[int] = 16
    size: int | None
    activation: Activation

    @property
    def first(self) -> int:
        """The first block with adapters."""
        return 0

    def scaling(self) -> float:
        """What an adapter's output is multiplied with."""
        return 1.0

    def width(self, hidden: int) -> int:
        """Of the bottlenecks."""
        return self.size or max(1, hidden // self.reduction)

    def parts(self, block: Block) -> list[str]:
        """Paths of what gets an adapter in a block."""
        return [block.attention, block.feed_forward] if self.after_attention else [block.feed_forward]

    def attach(self, model: nn.Module, *, seed: int) -> None:
        chosen = [path for block in blocks(model)[self.first :] for path in self.parts(block)]
        if not chosen:
            what = f"no block is left for an adapter after the first {self.first}"
            raise HoneError("M004", what, where="tuning.skip", fix=f"set tuning.skip below {len(blocks(model))}")
        model.requires_grad_(False)
        config: Any = model.config
        hidden, like = config.get_text_config().hidden_size, next(model.parameters())
        generator = torch.Generator().manual_seed(seed)

        def make(_: str, old: nn.Module) -> nn.Module:
            adapter = Bottleneck(hidden, self.width(hidden), hidden, activation=self.activation, scale=self.scaling())
            return Adapted(old, adapter.start(like, generator), parallel=self.beside)

        norms = [path for block in blocks(model) for path in block.norms] if self.norms_move else []
        for _ in replace(model, lambda name, _: name in chosen, make):
            pass
        whole.train_whole(model, norms)

    @property
    def norms_move(self) -> bool:
        """Whether the blocks' own norms are trained beside the adapters."""
        return False

    def count(self, shapes: Shapes) -> int:
        return (shapes.layers - self.first) * (1 + self.after_attention) * adapter_count(shapes.hidden, self.width(shapes.hidden))


def adapter_count(hidden: int, size: int) -> int:
    """Parameters of one adapter."""
    return 2 * size * hidden + hidden + size


@METHODS.add("houlsby")
@settings
class Houlsby(AdapterMethod):
    """Small bottlenecks after attention and after the feed-forward network of every block, with a nonlinearity inside; norms move too."""

    about: ClassVar[About] = About(
        when="more change than LoRA can hold, where the adapter need not be merged", paper="1902.00751", unmergeable=WHY, learning_rate=1e-3
    )
    after_attention: ClassVar[bool] = True

    size: Annotated[int, Ge(1)] | None = None
    """Width of the bottlenecks; None is a sixteenth of the hidden size."""
    activation: Activation = "gelu"
    """The nonlinearity inside."""
    norms: bool = True
    """Whether the norms of the blocks move as well, as in the paper."""

    @property
    def norms_move(self) -> bool:
        return self.norms

    def count(self, shapes: Shapes) -> int:
        return super().count(shapes) + (norm_count(shapes.parameters) if self.norms else 0)


@METHODS.add("pfeiffer")
@settings
class Pfeiffer(AdapterMethod):
    """Small bottlenecks after the feed-forward network of every block: about Houlsby's quality at half its size."""

    about: ClassVar[About] = About(
        when="adapters that AdapterFusion will combine later", paper="2005.00247", unmergeable=WHY, learning_rate=1e-3
    )

    size: Annotated[int, Ge(1)] | None = None
    """Width of the bottlenecks; None is a sixteenth of the hidden size."""
    activation: Activation = "relu"
    """The nonlinearity inside."""


@METHODS.add("parallel_adapter")
@settings
class ParallelAdapter(AdapterMethod):
    """Wide bottlenecks beside the feed-forward networks, fed with the same input and scaled: the strongest placement."""

    about: ClassVar[About] = About(
        when="the most quality from adapters, with many parameters", paper="2110.04366", unmergeable=WHY, learning_rate=1e-3
    )
    beside: ClassVar[bool] = True
    reduction: ClassVar[int] = 2

    size: Annotated[int, Ge(1)] | None = None
    """Width of the bottlenecks; None is half the hidden size."""
    activation: Activation = "relu"
    """The nonlinearity inside."""
    scale: Annotated[float, Gt(0)] = 4.0
    """What the adapters' output is multiplied with."""

    def scaling(self) -> float:
        return self.scale


@METHODS.add("adapterdrop")
@settings
class AdapterDrop(AdapterMethod):
    """Pfeiffer adapters that can do without the first blocks: training and answering get faster with each block left out."""

    about: ClassVar[About] = About(
        when="adapters whose depth is chosen after training, or whose training must be fast",
        paper="2010.11918", unmergeable=WHY, learning_rate=1e-3,
    )  # fmt: skip

    size: Annotated[int, Ge(1)] | None = None
    """Width of the bottlenecks; None is a sixteenth of the hidden size."""
    activation: Activation = "relu"
    """The nonlinearity inside."""
    skip: Annotated[int, Ge(0)] | None = None
    """First blocks without adapters. None draws their number anew at every step, so that any number can be left out later."""

    @property
    def first(self) -> int:
        return self.skip or 0

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        """Read adapters back; those of blocks that are skipped here stay in the file."""
        stored, wanted = adapter_folder.read(folder, base=base), trainable(model)
        here = {name: tensor for name, tensor in stored.tensors.items() if name in wanted or not self.skip}
        adapter_folder.copy_into(wanted, stored._replace(tensors=here), where=str(folder))

    def begin(self, model: nn.Module, *, step: int, total: int) -> None:
        if self.skip is None:
            adapters = adapted(model)
            without = int(torch.randint(len(adapters), ()))
            for place, layer in enumerate(adapters):
                layer.dropped = place < without


def adapted(model: nn.Module) -> list[Adapted]:
    """All parts with an adapter, in the order in which they are computed."""
    return [module for module in model.modules() if isinstance(module, Adapted)]


def adapters_of(model: nn.Module) -> Iterator[Bottleneck]:
    """The adapters alone."""
    return (layer.adapter for layer in adapted(model))
