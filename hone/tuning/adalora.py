"""AdaLoRA (arXiv 2303.10512): all matrices share one budget of ranks, which shrinks to a target while it moves to where it helps.

Shape legend: I input features, O output features, R rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.core.config import settings
from hone.core.errors import HoneError
from hone.tuning import folder as adapter_folder
from hone.tuning.base import METHODS, About, Beside, Tuning, replace
from hone.tuning.lowrank import LowRank, weight_of
from hone.tuning.packed import Packed, held, like
from hone.tuning.shapes import Shapes, shape_of
from hone.tuning.targets import choose

HALVES = ("a", "e", "b")


class SvdLinear(Beside):
    """A frozen linear layer beside scale * B diag(e) A. `kept` (R,) says which ranks have not been pruned.

    `mean_x` and `doubt_x` are running averages of each weight's importance and of how much it varies.
    """

    def __init__(self, base: nn.Module, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__(base)
        outputs, inputs = shape_of(base)
        near = like(base)
        device, dtype = near["device"], torch.promote_types(near["dtype"], torch.float32)
        self.scale = scale
        self.a = nn.Parameter(torch.empty(rank, inputs).normal_(0, 0.02, generator=generator).to(device, dtype))
        self.e = nn.Parameter(torch.zeros(rank, 1, device=device, dtype=dtype))
        self.b = nn.Parameter(torch.empty(outputs, rank).normal_(0, 0.02, generator=generator).to(device, dtype))
        self.register_buffer("kept", torch.ones(rank, dtype=torch.bool, device=device), persistent=False)
        for name in HALVES:
            for kind in ("mean", "doubt"):
                self.register_buffer(f"{kind}_{name}", torch.zeros_like(self.get_parameter(name)), persistent=False)

    def forward(self, x: Tensor) -> Any:
        if not self.active:
            return self.base(x)
        weight, a = held(self.base), self.a * self.e
        if isinstance(weight, Packed) or (type(self.base) in (nn.Linear, Conv1D) and x.dtype == weight.dtype):
            return LowRank.apply(x, weight, self.base.bias, a, self.b, self.scale)
        return self.base(x) + self.scale * (x @ a.to(x.dtype).t()) @ self.b.to(x.dtype).t()

    def merged(self) -> nn.Module:
        """The base with the change folded in, added in fp32 and rounded once."""
        weight_OI = weight_of(self.base)
        changed = weight_OI.to(self.a.dtype) + self.scale * self.b @ (self.a * self.e)
        weight_OI.copy_(changed.to(weight_OI.dtype))
        return self.base

    def notice(self, beta_mean: float, beta_doubt: float) -> None:
        """Update the importance of every weight: how much the loss would change without it, |w dL/dw|, smoothed."""
        for name in HALVES:
            weight, mean, doubt = self.get_parameter(name), self.get_buffer(f"mean_{name}"), self.get_buffer(f"doubt_{name}")
            assert weight.grad is not None
            now = (weight * weight.grad).abs()
            mean.lerp_(now, 1 - beta_mean)
            doubt.lerp_((now - mean).abs(), 1 - beta_doubt)

    def scores(self) -> Tensor:
        """Importance (R,) of each rank: its singular value's, plus the means over its two vectors."""
        a, e, b = (self.get_buffer(f"mean_{name}") * self.get_buffer(f"doubt_{name}") for name in HALVES)
        return e[:, 0] + (a.mean(1) + b.mean(0))

    def prune(self) -> None:
        """Hold the ranks that are not kept at zero."""
        self.e[~self.get_buffer("kept")] = 0


@METHODS.add("adalora")
@settings
class AdaLora(Tuning):
    """LoRA whose ranks move to the layers that need them: starts above the target and prunes down to it."""

    about = About(when="a fixed size of the adapter, layers of unlike importance, and a run of some hundred steps", paper="2303.10512",
                  peft_type="ADALORA", learning_rate=1e-3)  # fmt: skip

    rank: Annotated[int, Ge(1)] = 12
    """Rank of every matrix at the start."""
    target_rank: Annotated[int, Ge(1)] = 8
    """Mean rank at the end; the sum over all matrices is exactly this times their number."""
    alpha: Annotated[float, Gt(0)] | None = None
    """Scale of the change is alpha / rank. None means twice the rank."""
    targets: tuple[str, ...] | str = "all-linear"
    """Layers to adapt: names, patterns (regular expressions), or all-linear."""
    exclude: tuple[str, ...] = ()
    """Names or patterns that are left alone."""
    layers: tuple[int, ...] | None = None
    """Indices of the blocks to adapt; None means all."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Share of the steps before pruning begins."""
    settle: Annotated[float, Ge(0), Lt(1)] = 0.3
    """Share of the steps after the target is reached, in which the ranks stay as they are."""
    every: Annotated[int, Ge(1)] = 10
    """Steps between two prunings."""
    beta_mean: Annotated[float, Gt(0), Lt(1)] = 0.85
    """Memory of the importance."""
    beta_doubt: Annotated[float, Gt(0), Lt(1)] = 0.85
    """Memory of its uncertainty."""
    orthogonality: Annotated[float, Ge(0)] = 0.5
    """Weight of the penalty that keeps the vectors of a matrix at right angles."""

    @property
    def scale(self) -> float:
        alpha = self.alpha if self.alpha is not None else 2.0 * self.rank
        return alpha / (self.rank + 1e-5)  # as the reference implementation, so that files mean the same

    @classmethod
    def from_peft(cls, folder: Path) -> Tuning:
        raw, stored = adapter_folder.read_config(folder), adapter_folder.read(folder)
        paths = sorted({name.rpartition(".")[0] for name in stored.tensors})
        if raw.get("bias", "none") != "none" or raw.get("modules_to_save") or raw.get("use_rslora"):
            what = "the adapter uses options of peft (bias, modules_to_save, use_rslora) that cannot be honoured here"
            raise HoneError("M019", what, where=str(folder), fix="merge it into its base with peft, and start from the merged model")
        rank, target = int(raw["init_r"]), int(raw["target_r"])
        return cls(rank=rank, target_rank=min(target, rank), alpha=float(raw["lora_alpha"]), targets=tuple(paths))

    def attach(self, model: nn.Module, *, seed: int) -> None:
        if self.target_rank > self.rank:
            what = f"target_rank {self.target_rank} is above rank {self.rank}, and ranks only go down"
            raise HoneError("M004", what, where="tuning.target_rank", fix=f"set tuning.rank={self.target_rank + self.target_rank // 2}")
        model.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        wanted = set(self._chosen(Shapes.of(model)))
        for _ in replace(model, lambda path, _: path in wanted, lambda _, old: SvdLinear(old, self.rank, self.scale, generator)):
            pass

    def count(self, shapes: Shapes) -> int:
        return sum(self.rank * (sum(shapes.linears[path]) + 1) for path in self._chosen(shapes))

    def _chosen(self, shapes: Shapes) -> list[str]:
        return choose(shapes.linears, self.targets, every=shapes.paths, exclude=self.exclude, layers=self.layers)

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Mean distance of A A' and B' B from the identity."""
        if not self.orthogonality:
            return None
        grams = [gram for layer in svd_layers(model).values() for gram in (layer.a @ layer.a.t(), layer.b.t() @ layer.b)]
        distances = [torch.linalg.norm(gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)) for gram in grams]
        return self.orthogonality * torch.stack(distances).mean()

    def last_cut(self, total: int) -> int:
        """The step at which the budget reaches its target."""
        return max(1, total - int(self.settle * total))

    def budget(self, step: int, total: int) -> float:
        """Mean rank that may be left after a step: constant, then falling as a cube, then the target."""
        first, last = int(self.warmup * total), self.last_cut(total)
        if step >= last:
            return self.target_rank
        left = 1 - max(0, step - first) / max(1, last - first)
        return self.target_rank + (self.rank - self.target_rank) * left**3

    @torch.no_grad()
    def stepped(self, model: nn.Module, *, step: int, total: int) -> None:
        layers = list(svd_layers(model).values())
        last, first = self.last_cut(total), int(self.warmup * total)
        if step <= last:
            for layer in layers:
                layer.notice(self.beta_mean, self.beta_doubt)
        if step == last or (first < step < last and step % self.every == 0):
            share_out(layers, int(self.budget(step, total) * len(layers)))
        for layer in layers:
            layer.prune()

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        found = {f"{path}.{name}": part for path, layer in svd_layers(model).items() for name, part in layer.named_buffers(recurse=False)}
        return found

    def save(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        """Only what is left of each matrix, with peft's record of which ranks these were."""
        layers = svd_layers(model)
        kept = {path: layer.get_buffer("kept") for path, layer in layers.items()}
        config = {
            "peft_type": "ADALORA", "target_modules": sorted(layers), "init_r": self.rank, "target_r": self.target_rank, "r": 8,
            "lora_alpha": self.scale * (self.rank + 1e-5), "total_step": 1, "bias": "none",
            "fan_in_fan_out": any(isinstance(layer.base, Conv1D) for layer in layers.values()),
            "rank_pattern": {f"{path}.lora_E": mask.tolist() for path, mask in kept.items()},
        }  # fmt: skip
        tensors: dict[str, Tensor] = {}
        for path, layer in layers.items():
            tensors |= {
                f"{path}.lora_A": layer.a[kept[path]],
                f"{path}.lora_E": layer.e[kept[path]],
                f"{path}.lora_B": layer.b[:, kept[path]],
            }
        adapter_folder.write(folder, tensors, config, base=base)

    @torch.no_grad()
    def load(self, model: nn.Module, folder: Path, *, base: Mapping[str, str]) -> None:
        stored, layers, where = adapter_folder.read(folder, base=base), svd_layers(model), str(folder)
        patterns = stored.config.get("rank_pattern") or {}
        places: dict[str, Tensor] = {}
        for path, layer in layers.items():
            mask = torch.tensor(patterns.get(f"{path}.lora_E") or [True] * self.rank, dtype=torch.bool)
            if len(mask) != self.rank:
                what = f"the adapter started with rank {len(mask)} at '{path}', and the model is attached with rank {self.rank}"
                raise HoneError("M041", what, where=where, fix=f"set tuning.rank={len(mask)}")
            layer.get_buffer("kept").copy_(mask)
            places |= {f"{path}.lora_{name.upper()}": layer.get_parameter(name).new_zeros(_left(layer, name, mask)) for name in HALVES}
        adapter_folder.copy_into(places, stored, where=where)
        for path, layer in layers.items():
            mask = layer.get_buffer("kept")
            layer.e.zero_()
            layer.a[mask], layer.e[mask] = places[f"{path}.lora_A"], places[f"{path}.lora_E"]
            layer.b[:, mask] = places[f"{path}.lora_B"]


def _left(layer: SvdLinear, name: str, mask: Tensor) -> tuple[int, int]:
    """Shape of what is left of a matrix."""
    rows, columns = layer.get_parameter(name).shape
    return (rows, int(mask.sum())) if name == "b" else (int(mask.sum()), columns)


def svd_layers(model: nn.Module) -> dict[str, SvdLinear]:
    """Path -> layer of every adapted layer."""
    return {path: module for path, module in model.named_modules() if isinstance(module, SvdLinear)}


def share_out(layers: list[SvdLinear], budget: int) -> None:
    """Keep the `budget` most important ranks of all layers together; of equal ones, the first."""
    scores = torch.cat([layer.scores() for layer in layers])
    kept = torch.zeros_like(scores, dtype=torch.bool)
    kept[scores.argsort(descending=True, stable=True)[:budget]] = True
    for layer, mask in zip(layers, kept.split([len(layer.e) for layer in layers]), strict=True):
        layer.get_buffer("kept").copy_(mask)
