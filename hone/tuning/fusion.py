"""AdapterFusion (arXiv 2005.00247): a second stage that learns, token by token, which of several frozen adapters to listen to.

Where it is asked to, it ends with the few adapters of each block that were listened to most, as AdapterDrop (arXiv 2010.11918) prunes it.

Shape legend: T tokens (of any leading shape), N adapters, D hidden size.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning import folder as adapter_folder
from hone.tuning.adapter import FUNCTIONS, Bottleneck, output_of, with_output
from hone.tuning.anatomy import blocks
from hone.tuning.base import METHODS, About, Beside, Tuning, name_of, replace, trainable
from hone.tuning.prefix import wide
from hone.tuning.shapes import Shapes

KINDS = ("pfeiffer", "adapterdrop")
PLACE = "adapters"
"""Where a saved fusion keeps copies of its adapters."""


class Fused(Beside):
    """A feed-forward network with several adapters after it, mixed by attention from its output to theirs.

    With h the network's output and z_n the adapters': h + sum_n softmax_n(Q h . K z_n) V z_n. V starts as the identity. Adapters whose
    place in `kept_N` is 0 are not computed. `heard_N` adds up the shares of the tokens that were trained on.
    """

    def __init__(self, base: nn.Module, adapters: list[Bottleneck], *, like: Tensor, generator: torch.Generator) -> None:
        super().__init__(base)
        self.adapters = nn.ModuleList(adapters).requires_grad_(False)
        size = adapters[0].up.out_features
        self.query, self.key = (nn.Parameter((0.02 * torch.randn(size, size, generator=generator)).to(**wide(like))) for _ in range(2))
        self.value = nn.Parameter(torch.eye(size).to(**wide(like)))
        for name in ("kept_N", "heard_N"):
            self.register_buffer(name, torch.full((len(adapters),), float(name == "kept_N"), device=like.device), persistent=False)
        self.shares_TN: Tensor | None = None
        self.watched = self.pruned = False

    def left(self) -> list[int]:
        """Which adapters take part."""
        return [i for i, kept in enumerate(self.get_buffer("kept_N").tolist()) if kept] if self.pruned else [*range(len(self.adapters))]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = self.base(*args, **kwargs)
        if not self.active:
            return found
        out = output_of(found)
        query, key, value = (x.to(out.dtype) for x in (self.query, self.key, self.value))
        left = self.left()
        said_TND = torch.stack([self.adapters[i](out) for i in left], -2)
        scores_TN = torch.einsum("...d,...nd->...n", out @ query.t(), said_TND @ key.t())
        shares_TN = scores_TN.softmax(-1)
        if self.watched:
            self.shares_TN = shares_TN.detach().flatten(0, -2)
        if self.pruned and self.training:
            self.get_buffer("heard_N")[left] += shares_TN.detach().flatten(0, -2).sum(0)
        mixed = torch.einsum("...n,...nd->...d", shares_TN, said_TND)
        return with_output(found, out + mixed @ value.t())


@METHODS.add("fusion")
@settings
class Fusion(Tuning):
    """Learns to mix Pfeiffer adapters that were trained before, one for each task; they and the base stay as they are."""

    about: ClassVar[About] = About(
        when="several tasks have an adapter each, and a new one should profit from all",
        paper="2005.00247", unmergeable="the mixture of its adapters changes from token to token", learning_rate=5e-4, starts_as_base=False,
    )  # fmt: skip

    adapters: tuple[str, ...] = ()
    """Runs or folders with Pfeiffer adapters of this base, each trained on a task."""
    regularise: Annotated[float, Ge(0)] = 0.01
    """How strongly V is held at the identity."""
    keep: Annotated[int, Ge(1)] | None = None
    """Adapters that are left in each block when training ends, those that were listened to most: answers get faster. None keeps all."""

    def attach(self, model: nn.Module, *, seed: int) -> None:
        if not self.adapters:
            fix = "name runs that trained Pfeiffer adapters of this base: tuning.adapters=[runs/a,runs/b]"
            raise HoneError("M063", "fusion needs adapters that were trained before", where="tuning.adapters", fix=fix)
        if self.keep is not None and self.keep >= len(self.adapters):
            what = f"there are {len(self.adapters)} adapters, so keeping {self.keep} leaves none out"
            raise HoneError("M063", what, where="tuning.keep", fix="set a smaller tuning.keep, or leave it out")
        model.requires_grad_(False)
        stored = [adapter_of(adapter_folder.of_run(Path(folder))) for folder in self.adapters]
        like, generator = next(model.parameters()), torch.Generator().manual_seed(seed)
        places = [block.feed_forward for block in blocks(model)]

        def make(path: str, old: nn.Module) -> nn.Module:
            made = Fused(old, [rebuilt(one, path, like) for one in stored], like=like, generator=generator)
            made.pruned = self.keep is not None
            return made

        for _ in replace(model, lambda name, _: name in places, make):
            pass

    def count(self, shapes: Shapes) -> int:
        return 3 * shapes.layers * shapes.hidden**2

    def penalty(self, model: nn.Module) -> Tensor | None:
        if not self.regularise:
            return None
        apart = [(layer.value - torch.eye(len(layer.value), device=layer.value.device)).square().sum() for layer in fused(model).values()]
        return self.regularise * torch.stack(apart).sum()

    @torch.no_grad()
    def stepped(self, model: nn.Module, *, step: int, total: int) -> None:
        """After the last step, leave out what was listened to least."""
        for layer in fused(model).values() if self.keep is not None and step == total else ():
            most = layer.get_buffer("heard_N").topk(self.keep or 0).indices
            layer.get_buffer("kept_N").zero_()[most] = 1

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        names = ("kept_N", "heard_N") if self.keep is not None else ()
        return {f"{path}.{name}": layer.get_buffer(name) for path, layer in fused(model).items() for name in names}

    def _tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """What is saved: the mixtures, and which adapters are left, where not all are."""
        kept = {name: tensor for name, tensor in self.state(model).items() if name.endswith("kept_N")}
        return {name: parameter.detach() for name, parameter in trainable(model).items()} | kept

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        adapter_folder.copy_into(self._tensors(model), adapter_folder.read(folder, base=base), where=str(folder))

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        """Write the fusion with copies of its adapters, so that the folder can be moved."""
        config = adapter_folder.own_config(name_of(self), dataclasses.asdict(self))
        adapter_folder.write(folder, self._tensors(model), config, base=base)
        for i, source in enumerate(self.adapters):
            target = folder / PLACE / str(i)
            target.mkdir(parents=True, exist_ok=True)
            for name in (adapter_folder.CONFIG, adapter_folder.WEIGHTS):
                shutil.copyfile(adapter_folder.of_run(Path(source)) / name, target / name)

    @classmethod
    def located(cls, folder: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The adapters are those that lie beside a saved fusion."""
        kept = [str(folder / PLACE / str(i)) for i in range(len(options.get("adapters", ())))]
        return {**options, "adapters": kept} if (folder / PLACE).is_dir() else options


def adapter_of(folder: Path) -> adapter_folder.Stored:
    """A Pfeiffer adapter from disk. Raises M063 for adapters of another kind."""
    stored = adapter_folder.read(folder)
    method = (stored.config.get("hone") or {}).get("method")
    if method not in KINDS:
        kind = method or str(stored.config.get("peft_type")).partition(":")[0]
        fix = "train it with tuning.method=pfeiffer"
        raise HoneError(
            "M063", f"'{folder}' holds a '{kind}' adapter; fusion mixes {' and '.join(KINDS)}", where="tuning.adapters", fix=fix
        )
    return stored


def rebuilt(stored: adapter_folder.Stored, path: str, like: Tensor) -> Bottleneck:
    """The adapter at one place of a stored set. Raises M063 where the set has none there, for another base for instance."""
    start = f"{path}.adapter."
    tensors = {name.removeprefix(start): tensor for name, tensor in stored.tensors.items() if name.startswith(start)}
    if not tensors:
        what = f"the adapter trained on '{stored.base.get('name')}' has nothing for '{path}'"
        raise HoneError("M063", what, where="tuning.adapters", fix="take adapters of this base, without skipped blocks")
    activation = stored.config["hone"]["activation"]
    assert activation in FUNCTIONS
    size, hidden = tensors["down.weight"].shape
    adapter = Bottleneck(hidden, size, hidden, activation=activation)
    adapter.load_state_dict(tensors)
    return adapter.to(**wide(like))


def fused(model: nn.Module) -> dict[str, Fused]:
    """Path to every place where adapters are mixed."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Fused)}


@contextmanager
def watching(model: nn.Module) -> Iterator[dict[str, Fused]]:
    """While the context lasts every place keeps the shares (T, N) of its last forward in `shares_TN`, to be shown or saved."""
    places = fused(model)
    for layer in places.values():
        layer.watched = True
    try:
        yield places
    finally:
        for layer in places.values():
            layer.watched, layer.shares_TN = False, None
