"""Prefix tuning (arXiv 2101.00190) and P-tuning v2 (arXiv 2110.07602): learned keys and values before every sequence, in every layer.

Shape legend: P positions, K key heads, D head size, W elements of a token's keys in one layer (K D), E encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning import prompt_io
from hone.tuning.base import METHODS, About, Prologue, Tuning
from hone.tuning.shapes import Shapes

WHY = "its keys and values stand beside the text, in no weight"


class Sizes(NamedTuple):
    """What keys and values of a model look like."""

    layers: int
    heads: int
    head_size: int

    @property
    def width(self) -> int:
        return self.heads * self.head_size

    @classmethod
    def of(cls, model: nn.Module) -> Sizes:
        """Raises M060 for attention that our keys and values cannot reach."""
        config: Any = model.config
        text = config.get_text_config()
        options = text.to_dict()
        fix = "use tuning.method=lora or prompt"
        if not model._can_set_attn_implementation():  # type: ignore[operator]
            raise HoneError("M060", "this model's attention is fixed, so nothing can be put before it", where="tuning.method", fix=fix)
        unlike = [name for name in ("kv_lora_rank", "num_kv_shared_layers", "per_layer_config", "attn_layer_period") if options.get(name)]
        if unlike:
            what = f"the keys of this model are not alike in all layers, or not made of heads ({unlike[0]})"
            raise HoneError("M060", what, where="tuning.method", fix=fix)
        heads = text.num_attention_heads
        size = options.get("head_dim") or text.hidden_size // heads
        return cls(text.num_hidden_layers, options.get("num_key_value_heads") or heads, size)


class KeysValues(Prologue):
    """Keys and values for each layer: tables, or what a small network makes of one table while training.

    The network is W -> E -> 2 W for each layer, with a tanh between; the first half is shared by all layers. `fix` puts
    tables in its place.
    """

    virtual_tokens: ClassVar[bool] = False

    def __init__(self, sizes: Sizes, length: int, encoder: int | None, *, like: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes, self.length, self.positions = sizes, length, length
        self._like = wide(like)
        both = 2 * sizes.width
        self.words: nn.Parameter | None = None
        if encoder is None:
            self.tables = nn.ParameterList(self._normal(generator, length, both, std=0.02) for _ in range(sizes.layers))
            return
        self.words = self._normal(generator, length, sizes.width, std=1.0)
        self.inner = linear(sizes.width, encoder, self._like, generator)
        self.outer = nn.ModuleList(linear(encoder, both, self._like, generator) for _ in range(sizes.layers))

    def _normal(self, generator: torch.Generator, *shape: int, std: float) -> nn.Parameter:
        return nn.Parameter((std * torch.randn(*shape, generator=generator)).to(**self._like))

    def table(self, layer: int) -> Tensor:
        """Keys and values of a layer side by side, (P, 2 W)."""
        found: Tensor = self.tables[layer] if self.words is None else self.outer[layer](torch.tanh(self.inner(self.words)))
        return found

    def keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        key, value = self.table(layer).view(self.length, 2, self.sizes.heads, self.sizes.head_size).permute(1, 2, 0, 3)
        return key, value

    @torch.no_grad()
    def start_at(self, tables: list[Tensor]) -> None:
        """Make the keys and values these, (P, 2 W) for each layer. The network is solved for them: exactly where P <= E + 1."""
        if self.words is None:
            for parameter, table in zip(self.tables, tables, strict=True):
                parameter.copy_(table)
            return
        inner = torch.tanh(self.inner(self.words)).double().cpu()
        inner = torch.cat([inner, inner.new_ones(self.length, 1)], 1)
        for layer, table in zip(self.outer, tables, strict=True):
            solved = torch.linalg.lstsq(inner, table.double().cpu(), driver="gelsd").solution
            layer.weight.copy_(solved[:-1].t())  # type: ignore[operator]
            layer.bias.copy_(solved[-1])  # type: ignore[operator]

    def fix(self, tables: list[Tensor]) -> None:
        """Put tables in the place of the network: it is not needed once training is over."""
        if self.words is not None:
            self.words = None
            del self.inner, self.outer
            self.tables = nn.ParameterList(nn.Parameter(table.to(**self._like)) for table in tables)
        self.start_at(tables)


class PrefixMethod(Tuning):
    """What prefix tuning and P-tuning v2 have in common."""

    length: int
    start: Literal["words", "zero", "random"]
    text: str | None

    @property
    def network(self) -> int | None:
        """Width of the network that makes the prefix while training."""
        return None

    @property
    def positions(self) -> int:
        return self.length

    def attach(self, model: nn.Module, *, seed: int) -> None:
        sizes, generator = Sizes.of(model), torch.Generator().manual_seed(seed)
        model.requires_grad_(False)
        like = next(model.parameters())
        prologue = KeysValues(sizes, self.length, self.network, like=like, generator=generator)
        if self.start == "zero":
            prologue.start_at([like.new_zeros(self.length, 2 * sizes.width)] * sizes.layers)
        elif self.start == "words":
            rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
            prologue.start_at(said(model, torch.randint(rows, (self.length,), generator=generator).tolist()))
        model.prologue = prologue

    def prime(self, model: nn.Module, encode: Callable[[str], list[int]]) -> None:
        if self.text is not None:
            keys_values_of(model).start_at(said(model, prompt_io.repeated(encode(self.text), self.length)))

    @torch.no_grad()
    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        prologue = keys_values_of(model)
        sizes = prologue.sizes
        tables_PX = torch.cat([prologue.table(layer) for layer in range(sizes.layers)], 1)
        network = {"prefix_projection": self.network is not None, "encoder_hidden_size": self.network or sizes.width}
        shape = {"token_dim": sizes.width, "num_attention_heads": sizes.heads, "num_layers": sizes.layers}
        prompt_io.write(folder, tables_PX, {"peft_type": "PREFIX_TUNING"} | network | shape, base=base)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        prologue = keys_values_of(model)
        shape = (self.length, 2 * prologue.sizes.width * prologue.sizes.layers)
        table_PX = prompt_io.read(folder, ("PREFIX_TUNING",), shape, base=base)
        prologue.fix(list(table_PX.split(2 * prologue.sizes.width, 1)))

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        return cls(length=prompt_io.length_of(folder), start="zero")  # type: ignore[call-arg]


@METHODS.add("prefix")
@settings
class Prefix(PrefixMethod):
    """Learned keys and values before every sequence, in every layer. Steers a model with few numbers; best started from words."""

    about: ClassVar[About] = About(
        when="a very small artifact for one task, on a model that stays as it is",
        paper="2101.00190", peft_type="PREFIX_TUNING", unmergeable=WHY, learning_rate=5e-3, starts_as_base=False,
    )  # fmt: skip

    length: Annotated[int, Ge(1)] = 20
    """Positions before every sequence: 10 for short labels, up to 200 for long answers."""
    encoder: Annotated[int, Ge(1)] | None = None
    """Width of a network that makes the prefix while training, which makes large learning rates safe. None trains it directly."""
    start: Literal["words", "zero", "random"] = "words"
    """words: what the model itself makes of a text, or of random tokens. zero: keys and values of zeros. random: small noise."""
    text: str | None = None
    """The words to start from: best the task in a sentence. Cut or repeated to the length."""

    @property
    def network(self) -> int | None:
        return self.encoder

    def count(self, shapes: Shapes) -> int:
        wide = 2 * shapes.layers * shapes.kv_width
        if self.encoder is None:
            return self.length * wide
        return self.length * shapes.kv_width + (shapes.kv_width + 1) * self.encoder + (self.encoder + 1) * wide


@METHODS.add("ptuning_v2")
@settings
class PTuningV2(PrefixMethod):
    """Deep prompts: prefix tuning without a network, for understanding tasks of any size of model."""

    about: ClassVar[About] = About(
        when="labelling and extraction with a tiny artifact",
        paper="2110.07602", peft_type="PREFIX_TUNING", unmergeable=WHY, learning_rate=5e-3, starts_as_base=False,
    )  # fmt: skip

    length: Annotated[int, Ge(1)] = 20
    """Positions before every sequence: about 20 for easy tasks, 100 for hard ones."""
    start: Literal["words", "zero", "random"] = "words"
    """words: what the model itself makes of a text, or of random tokens. zero: keys and values of zeros. random: small noise."""
    text: str | None = None
    """The words to start from: best the task in a sentence. Cut or repeated to the length."""

    def count(self, shapes: Shapes) -> int:
        return 2 * shapes.layers * self.length * shapes.kv_width


def keys_values_of(model: nn.Module) -> KeysValues:
    """The keys and values that were attached."""
    found = model.prologue
    assert isinstance(found, KeysValues)
    return found


@torch.no_grad()
def said(model: nn.Module, ids: list[int]) -> list[Tensor]:
    """Keys and values of every layer, side by side (P, 2 W), that the model makes of some tokens. Raises M060 where it keeps none."""
    device = next(model.parameters()).device
    with _own_attention(model):
        out = model(input_ids=torch.tensor([ids], device=device), use_cache=True)
    layers = out["past_key_values"].layers if out.get("past_key_values") is not None else []
    pairs = [[x[0].transpose(0, 1).flatten(1) for x in (layer.keys, layer.values)] for layer in layers]
    if not pairs or any(len(x) != len(ids) for pair in pairs for x in pair):
        what = f"this model does not keep the keys and values of {len(ids)} tokens"
        raise HoneError("M060", what, where="tuning.length", fix="set a shorter tuning.length, or tuning.start=random")
    return [torch.cat(pair, 1) for pair in pairs]


@contextmanager
def _own_attention(model: nn.Module) -> Iterator[None]:
    """The plainest attention, in evaluation mode, whatever the model has been given meanwhile."""
    config: Any = model.config
    before, training = str(config._attn_implementation), model.training
    model.eval()
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_attn_implementation(before)  # type: ignore[operator]
        model.train(training)


def linear(inputs: int, outputs: int, like: Mapping[str, Any], generator: torch.Generator) -> nn.Linear:
    """A linear layer with torch's usual start, from our own generator."""
    made: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, **like)
    bound = inputs**-0.5
    for parameter in made.parameters():
        parameter.data.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
    return made


def wide(like: Tensor) -> dict[str, Any]:
    """Where and in which type trained numbers are kept."""
    return {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
