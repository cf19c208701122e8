"""A model's weights as named tensors that are read one at a time, so that no export holds a whole model.

Shape legend: I input features, O output features, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.models.skeleton import own_name, skeleton, transposed
from hone.models.tensorfile import read_stored
from hone.plan.headers import Stored, stored_tensors
from hone.tuning.peft_io import AdapterFile

T = TypeVar("T")
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}
NAMES = {dtype: name for name, dtype in TYPES.items()}


class Weights(Protocol):
    """Named tensors, by the names that transformers gives them. Tied matrices appear once."""

    flipped: frozenset[str]
    """Those that lie as (inputs, outputs)."""

    def names(self) -> list[str]:
        """All names, in the order in which they lie."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes, without reading the tensor."""

    def dtype(self, name: str) -> torch.dtype:
        """The type in which the tensor is kept."""

    def get(self, name: str) -> Tensor:
        """The numbers, in the kept type, or wider where something was added that has not been rounded yet."""


class StoredWeights:
    """The weights of a model's folder, under the model's own names."""

    def __init__(self, folder: Path, model: nn.Module | None = None) -> None:
        model = model if model is not None else skeleton(folder)
        known = frozenset(model.state_dict())
        self._stored: dict[str, Stored] = {}
        for name, stored in stored_tensors(folder).items():
            mine = own_name(name, model, known)
            if mine in known and stored.dtype in TYPES:
                self._stored[mine] = stored
        self._stored = without_twins(self._stored, model)
        self.flipped = transposed(model)

    def names(self) -> list[str]:
        return list(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._stored[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return TYPES[self._stored[name].dtype]

    def get(self, name: str) -> Tensor:
        return read_stored(self._stored[name])


class AdaptedWeights:
    """Stored weights with a low-rank adapter folded in, each when it is read: added in fp32, not rounded."""

    def __init__(self, base: Weights, adapter: AdapterFile) -> None:
        self.base, self.adapter, self.flipped = base, adapter, base.flipped
        known = set(base.names())
        lost = [path for path in adapter.tensors if f"{path}.weight" not in known]
        if lost:
            fix = "export with the base that the adapter was trained on"
            raise HoneError("M003", f"the adapter changes '{lost[0]}', which the base's files do not hold", fix=fix)

    def names(self) -> list[str]:
        return self.base.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.base.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self.base.dtype(name)

    def get(self, name: str) -> Tensor:
        stored = self.base.get(name)
        pair = self.adapter.tensors.get(name.removesuffix(".weight"))
        if pair is None or not name.endswith(".weight"):
            return stored
        a_RI, b_OR = pair
        wide = torch.promote_types(stored.dtype, torch.float32)
        change_OI = self.adapter.config.scale(name.removesuffix(".weight")) * (b_OR.to(wide) @ a_RI.to(wide))
        whole: Tensor = stored.to(wide) + (change_OI.t() if name in self.flipped else change_OI)
        return whole


def streams(adapter: AdapterFile) -> bool:
    """Whether an adapter is nothing but products B A beside linear layers, so that it can be added tensor by tensor."""
    tables = any(path.endswith(("embed_tokens", "wte", "wpe")) for path in adapter.tensors)
    return not (adapter.config.dora or adapter.extra or tables) and adapter.config.init == "default"


class LoadedWeights:
    """The weights of a model that is in memory, for methods whose fold needs the whole model.

    `changed` are keys of config.json that the fold has set: biases that the base did not have, for one.
    """

    def __init__(self, model: nn.Module, dtypes: Mapping[str, torch.dtype], changed: Mapping[str, Any]) -> None:
        self.changed = changed
        self._tensors = without_twins(dict(model.state_dict()), model)
        self._dtypes, self.flipped = dtypes, transposed(model)

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._dtypes.get(name, self._tensors[name].dtype)

    def get(self, name: str) -> Tensor:
        return self._tensors[name].detach().cpu()


def changed_config(weights: Weights) -> dict[str, Any]:
    """Keys of config.json that these weights need to be other than the base's."""
    return dict(weights.changed) if isinstance(weights, LoadedWeights) else {}


def without_twins(tensors: dict[str, T], model: nn.Module) -> dict[str, T]:
    """Leave out the second names of tied matrices, the head that is the embedding for one."""
    twins: object = model.all_tied_weights_keys
    assert isinstance(twins, Mapping)
    return {name: tensor for name, tensor in tensors.items() if not (name in twins and twins[name] in tensors)}


def total_bytes(weights: Weights, dtype: torch.dtype | None = None) -> int:
    """What the tensors take in a type, or in their own."""
    return sum(torch.Size(weights.shape(name)).numel() * (dtype or weights.dtype(name)).itemsize for name in weights.names())


def values(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in turn."""
    for name in weights.names():
        yield name, weights.get(name)
