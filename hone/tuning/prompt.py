"""Prompt tuning (arXiv 2104.08691) and P-tuning (arXiv 2103.10385): learned embeddings before every sequence.

Shape legend: P virtual tokens, D hidden size, E encoder width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from hone.core.config import settings
from hone.tuning import prompt_io
from hone.tuning.base import METHODS, About, Prologue, Tuning
from hone.tuning.prefix import linear, wide
from hone.tuning.shapes import Shapes

WHY = "its virtual tokens stand in the text, in no weight"


class VirtualTokens(Prologue):
    """A table of embeddings (P, D), and perhaps a network that makes the embeddings of it while training."""

    virtual_tokens: ClassVar[bool] = True

    def __init__(self, table_PD: Tensor, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.length = self.positions = len(table_PD)
        self.table = nn.Parameter(table_PD)
        self.encoder = encoder

    def prompt(self) -> Tensor:
        return self.table if self.encoder is None else self.encoder(self.table)

    @torch.no_grad()
    def fix(self, table_PD: Tensor) -> None:
        """Put embeddings in the place of the network: it is not needed once training is over."""
        self.encoder = None
        self.table.copy_(table_PD)


class MlpEncoder(nn.Module):
    """D -> E -> E -> D with rectifiers between."""

    def __init__(self, size: int, width: int, like: Mapping[str, Any], generator: torch.Generator) -> None:
        super().__init__()
        sizes = ((size, width), (width, width), (width, size))
        first, second, third = (linear(a, b, like, generator) for a, b in sizes)
        self.mlp_head = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, table_PD: Tensor) -> Tensor:
        out: Tensor = self.mlp_head(table_PD)
        return out


class LstmEncoder(nn.Module):
    """Two layers of a bidirectional LSTM of width E, then 2 E -> 2 E -> D."""

    def __init__(self, size: int, width: int, like: Mapping[str, Any], generator: torch.Generator) -> None:
        super().__init__()
        self.lstm_head = nn.LSTM(size, width, num_layers=2, bidirectional=True, batch_first=True, **like)
        for parameter in self.lstm_head.parameters():
            bound = width**-0.5
            parameter.data.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
        first, second = (linear(2 * width, outputs, like, generator) for outputs in (2 * width, size))
        self.mlp_head = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, table_PD: Tensor) -> Tensor:
        out: Tensor = self.mlp_head(self.lstm_head(table_PD[None])[0])[0]
        return out


class PromptMethod(Tuning):
    """What prompt tuning and P-tuning have in common on disk."""

    length: int

    @property
    def positions(self) -> int:
        return self.length

    def peft_options(self) -> dict[str, Any]:
        """The method in peft's words."""
        raise NotImplementedError

    @torch.no_grad()
    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        config: Any = model.config
        text = config.get_text_config()
        shape = {"token_dim": text.hidden_size, "num_attention_heads": text.num_attention_heads, "num_layers": text.num_hidden_layers}
        prompt_io.write(folder, virtual_tokens_of(model).prompt(), self.peft_options() | shape, base=base)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        prologue = virtual_tokens_of(model)
        shape = (self.length, prologue.table.shape[1])
        prologue.fix(prompt_io.read(folder, (str(self.about.peft_type),), shape, base=base))


@METHODS.add("prompt")
@settings
class Prompt(PromptMethod):
    """Learned virtual tokens before every sequence: the fewest numbers of all methods. Equals full tuning only on very large models."""

    about: ClassVar[About] = About(
        when="the smallest artifact of all, on a very large model",
        paper="2104.08691", peft_type="PROMPT_TUNING", unmergeable=WHY, learning_rate=3e-2, starts_as_base=False,
    )  # fmt: skip

    length: Annotated[int, Ge(1)] = 20
    """Virtual tokens before every sequence; 20 to 100 is usual."""
    start: Literal["words", "random"] = "words"
    """words: the embeddings of a text, or of random tokens. random: numbers of the size that embeddings have."""
    text: str | None = None
    """The words to start from: best the task or its labels. Cut or repeated to the length."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        weight = model.get_input_embeddings().weight  # type: ignore[operator]
        if self.start == "words":
            table_PD = words(model, torch.randint(len(weight), (self.length,), generator=generator).tolist())
        else:
            table_PD = torch.randn(self.length, weight.shape[1], generator=generator).to(**wide(weight)) * weight.float().std().item()
        model.prologue = VirtualTokens(table_PD)

    def prime(self, model: nn.Module, encode: Callable[[str], list[int]]) -> None:
        if self.text is not None:
            virtual_tokens_of(model).fix(words(model, prompt_io.repeated(encode(self.text), self.length)))

    def count(self, shapes: Shapes) -> int:
        return self.length * shapes.hidden

    def peft_options(self) -> dict[str, Any]:
        return {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM"}

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        return cls(length=prompt_io.length_of(folder))


@METHODS.add("ptuning")
@settings
class PTuning(PromptMethod):
    """Virtual tokens made by a small network while training, which ties them together. Only its output is kept."""

    about: ClassVar[About] = About(
        when="virtual tokens where prompt tuning learns too slowly",
        paper="2103.10385", peft_type="P_TUNING", unmergeable=WHY, learning_rate=5e-3, starts_as_base=False,
    )  # fmt: skip

    length: Annotated[int, Ge(1)] = 20
    """Virtual tokens before every sequence."""
    encoder: Literal["mlp", "lstm"] = "mlp"
    """The network: three linear layers, or a bidirectional LSTM with two more."""
    width: Annotated[int, Ge(1)] = 128
    """Its inner width."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        weight = model.get_input_embeddings().weight  # type: ignore[operator]
        size, like = weight.shape[1], wide(weight)
        make = MlpEncoder if self.encoder == "mlp" else LstmEncoder
        table_PD = torch.randn(self.length, size, generator=generator).to(**like)
        model.prologue = VirtualTokens(table_PD, make(size, self.width, like, generator))

    def count(self, shapes: Shapes) -> int:
        size, width = shapes.hidden, self.width
        if self.encoder == "mlp":
            return self.length * size + (size + 1) * width + (width + 1) * width + (width + 1) * size
        lstm = 2 * 4 * width * ((size + width + 2) + (3 * width + 2))
        return self.length * size + lstm + (2 * width + 1) * 2 * width + (2 * width + 1) * size

    def peft_options(self) -> dict[str, Any]:
        return {"peft_type": "P_TUNING", "encoder_reparameterization_type": self.encoder.upper(), "encoder_hidden_size": self.width}

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        return cls(length=prompt_io.length_of(folder))


def virtual_tokens_of(model: nn.Module) -> VirtualTokens:
    """The virtual tokens that were attached."""
    found = model.prologue
    assert isinstance(found, VirtualTokens)
    return found


@torch.no_grad()
def words(model: nn.Module, ids: list[int]) -> Tensor:
    """Embeddings (P, D) of some tokens, in the type of what is trained."""
    table: nn.Module = model.get_input_embeddings()  # type: ignore[operator]
    weight = table.weight
    assert isinstance(weight, Tensor)
    found: Tensor = table(torch.tensor(ids, device=weight.device))
    return found.detach().clone().to(**wide(weight))
