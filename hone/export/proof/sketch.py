"""Sketches of weight matrices: a few numbers that tell a lost, scaled, rounded or foreign matrix from the trained one.

A matrix W is seen through random signs, a'Wb. What training changed is seen in the direction where the change is strongest,
so that even 4-bit rounding, which is spread over all directions, cannot hide a lost or rescaled adapter.

Shape legend: I input features, O output features, V vocabulary.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.export.proof.golden import Change, Sketch
from hone.export.tensors import without_twins
from hone.models.skeleton import skeleton, transposed
from hone.tuning.base import Beside, Tuning
from hone.tuning.rows import EmbeddingRows

LOOKS = 4
"""Numbers of a sketch."""
ROUNDS = 4
"""Power iterations for the direction of a change."""

Map = Callable[[Tensor], Tensor]


def signs(name: str, count: int, size: int) -> Tensor:
    """Random signs (count, size) that depend on the name alone, fp64."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (count, size), generator=generator).double() * 2 - 1


def sketch(name: str, weight: Tensor, *, flipped: bool = False) -> Sketch:
    """The sketch of a stored tensor; a vector is a matrix of one row."""
    weight_OI = as_matrix(weight, flipped=flipped)
    return _sketch(name, (weight_OI.shape[0], weight_OI.shape[1]), lambda b: (b.to(weight_OI) @ weight_OI.t()).double())


def as_matrix(weight: Tensor, *, flipped: bool) -> Tensor:
    """Any tensor as (O, I), in a type wide enough for sums."""
    flat = weight.detach().reshape(-1, weight.shape[-1]) if weight.dim() > 1 else weight.detach()[None]
    return (flat.t() if flipped else flat).to(torch.float64 if flat.numel() < 1 << 24 else torch.float32)


def _sketch(name: str, shape: tuple[int, int], look: Map) -> Sketch:
    a = signs(f"{name}/a", LOOKS, shape[0])
    seen = torch.stack([look(b[None])[0].double().cpu() for b in signs(f"{name}/b", LOOKS, shape[1])])
    numbers = (a * seen).sum(-1)
    return Sketch(shape, float(seen.square().sum(-1).mean().sqrt()), tuple(numbers.tolist()))


def row_view(embedding_VD: Tensor) -> Tensor:
    """Each row of an embedding from one direction, (V,) fp32."""
    direction = signs("rows", 1, embedding_VD.shape[1])[0].float()
    return embedding_VD.detach().float().cpu() @ direction


class Sketches:
    """All sketches of a live model, tuned or not."""

    def __init__(self, model: nn.Module, tuning: Tuning) -> None:
        self.model, self.tuning = model, tuning
        self.bare = skeleton(copy.deepcopy(model.config))  # type: ignore[arg-type]
        self.flipped = transposed(self.bare)
        self.names = without_twins(self.bare.state_dict(), self.bare)

    @torch.no_grad()
    def take(self) -> tuple[dict[str, Sketch], dict[str, Change]]:
        """By the names of the plain model: the effective weights, and where they were changed."""
        found: dict[str, Sketch] = {}
        for name in self.names:
            tensor = self._plain(name)
            if tensor is not None:
                found[name] = sketch(name, tensor.cpu(), flipped=name in self.flipped)
        changes: dict[str, Change] = {}
        for path, now, base in self._wrapped():
            found |= _of_layer(path, self.bare.get_submodule(path), now)
            change = _change(path, now, base, found[f"{path}.weight"].shape) if base is not None else None
            changes |= {f"{path}.weight": change} if change is not None else {}
        return found, changes

    def rows(self) -> Tensor:
        """The embedding as `row_view` sees it."""
        embedding: Any = self.model.get_input_embeddings()  # type: ignore[operator]
        return row_view(embedding.weight)

    def _plain(self, name: str) -> Tensor | None:
        """A weight that is where the plain model has it; None where a tuned layer has taken its place."""
        path, _, leaf = name.rpartition(".")
        try:
            owner = self.model.get_submodule(path)
        except AttributeError:
            return None
        if isinstance(owner, EmbeddingRows):
            return owner.weight
        if isinstance(owner, Beside) and not _is_linear(plain := self.bare.get_submodule(path)) and not isinstance(plain, nn.Embedding):
            owner = copy.deepcopy(owner).merged()
        held = {**dict(owner.named_parameters(recurse=False)), **dict(owner.named_buffers(recurse=False))}
        tensor = held.get(leaf)
        return tensor if tensor is not None and tensor.is_floating_point() else None

    def _wrapped(self) -> Iterator[tuple[str, nn.Module, nn.Module | None]]:
        """Path, tuned layer and the same layer without its tuning, both in fp64, for every linear layer that was wrapped."""
        alive = dict(self.model.named_modules())
        for path, plain in self.bare.named_modules():
            if not _is_linear(plain) or f"{path}.weight" not in self.names or self._plain(f"{path}.weight") is not None:
                continue
            live = alive.get(path)
            if live is not None and all(p.is_floating_point() for p in live.parameters()):
                now = copy.deepcopy(live).double().eval()
                if _straight(now, self._inputs(path)):
                    yield path, now, self._without(live)

    def _without(self, live: nn.Module) -> nn.Module | None:
        try:
            with self.tuning.disabled(self.model):
                return copy.deepcopy(live).double().eval()
        except HoneError:
            return None

    def _inputs(self, path: str) -> int:
        weight = self.bare.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        return weight.shape[0] if f"{path}.weight" in self.flipped else weight.shape[1]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _linear(module: nn.Module, size: int) -> Map:
    """The layer without its bias."""
    device = _device(module)
    zero = module(torch.zeros(1, size, dtype=torch.float64, device=device))
    return lambda x: module(x.to(device, torch.float64)) - zero


def _device(module: nn.Module) -> torch.device:
    """Where a layer lies; a quantised one may have no parameters at all."""
    return next(chain(module.parameters(), module.buffers())).device


def _straight(module: nn.Module, size: int) -> bool:
    """Whether a layer is linear, so that it can become a plain matrix."""
    look, x = _linear(module, size), signs("straight", 1, size)
    return bool(torch.allclose(look(3 * x), 3 * look(x), rtol=1e-6, atol=1e-9))


def _of_layer(path: str, plain: nn.Module, now: nn.Module) -> dict[str, Sketch]:
    shape = plain.weight.shape
    assert isinstance(shape, torch.Size)
    outputs, inputs = (shape[1], shape[0]) if type(plain).__name__ == "Conv1D" else (shape[0], shape[1])
    found = {f"{path}.weight": _sketch(f"{path}.weight", (outputs, inputs), _linear(now, inputs))}
    if plain.bias is not None:
        device = _device(now)
        found[f"{path}.bias"] = sketch(f"{path}.bias", now(torch.zeros(1, inputs, dtype=torch.float64, device=device))[0].cpu())
    return found


def _change(path: str, now: nn.Module, base: nn.Module, shape: tuple[int, int]) -> Change | None:
    """Power iteration on the difference of two linear maps; None where nothing changed."""
    size = shape[1]
    after, before = _linear(now, size), _linear(base, size)

    def difference(x: Tensor) -> Tensor:
        return after(x) - before(x)

    v = signs(f"{path}/v", 1, size).to(_device(now))
    u = difference(v)
    for _ in range(ROUNDS):
        v = v / v.norm()
        u = difference(v)
        if not bool(u.norm() > 0):
            return None
        u = u / u.norm()
        with torch.enable_grad():
            x = v.clone().requires_grad_(True)
            (v,) = torch.autograd.grad((difference(x) * u).sum(), x)
    u_kept, v_kept = u[0].bfloat16(), (v / v.norm())[0].bfloat16()
    u, v = u_kept.double()[None], v_kept.double()[None]
    u, v = (x.to(_device(now)) for x in (u, v))
    numbers = _sketch(f"{path}.weight", shape, before).numbers
    return Change(u_kept.cpu(), v_kept.cpu(), float((before(v) * u).sum()), float((difference(v) * u).sum()), numbers)
