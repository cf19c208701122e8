"""The optimiser: AdamW on fp32 masters, its moments in 32 or 8 bits, and the learning-rate schedule as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from hone.core.errors import HoneError
from hone.train.settings import OptimSettings


class Masters:
    """The optimiser's view of the trainable parameters: fp32 (or fp64) masters with gradients summed in their type.

    A parameter of a smaller type (full tuning in bf16) gets a master copy, and each micro-batch's gradient moves into
    the master at once, so that accumulation rounds nothing and no second copy of the gradients is kept.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        for parameter in parameters:
            wide = torch.promote_types(parameter.dtype, torch.float32)
            master = parameter if parameter.dtype == wide else nn.Parameter(parameter.detach().to(wide))
            self.pairs.append((parameter, master))
            if master is not parameter:
                parameter.register_post_accumulate_grad_hook(self._mover(master))

    @staticmethod
    def _mover(master: nn.Parameter):  # type: ignore[no-untyped-def]
        def move(parameter: Tensor) -> None:
            assert parameter.grad is not None
            if master.grad is None:
                master.grad = parameter.grad.to(master.dtype)
            else:
                master.grad += parameter.grad
            parameter.grad = None

        return move

    def __iter__(self) -> Iterator[nn.Parameter]:
        return (master for _, master in self.pairs)

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the parameters that the model computes with."""
        for parameter, master in self.pairs:
            if parameter is not master:
                parameter.copy_(master)

    def gradients(self) -> list[Tensor]:
        """All gradients, created as zeros where no micro-batch touched a parameter."""
        for master in self:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        return [master.grad for master in self if master.grad is not None]


def adamw(masters: Masters, optim: OptimSettings, factors: Iterable[float] | None = None) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101) by the name in `optim`; matrices decay, vectors do not. `factors` scale each master's learning rate.

    Each group of the optimiser keeps its factor under "factor". Raises M020 or M088 where the optimiser cannot run.
    """
    kinds: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for master, factor in zip(masters, [1.0] * len(masters.pairs) if factors is None else factors, strict=True):
        kinds.setdefault((master.dim() >= 2, factor), []).append(master)
    groups = [
        {"params": kind, "weight_decay": optim.weight_decay if matrix else 0.0, "factor": factor}
        for (matrix, factor), kind in sorted(kinds.items(), key=lambda item: (not item[0][0], item[0][1]))
    ]
    rate, betas = optim.learning_rate or 0.0, (optim.beta1, optim.beta2)
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
    check_optimiser(optim.name, next(iter(masters)).device)
    import bitsandbytes

    made = {"adamw_8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit}[optim.name]
    eight: torch.optim.Optimizer = made(groups, lr=rate, betas=betas)
    return eight


def check_optimiser(name: str, device: torch.device) -> None:
    """Raise M088 for an 8-bit optimiser without bitsandbytes, M020 for a paged one without a GPU to page from."""
    if name != "adamw" and find_spec("bitsandbytes") is None:
        fix = "pip install 'hone-llm[quant]', or set optim.name=adamw"
        raise HoneError("M088", f"optim.name={name} needs bitsandbytes, which is not installed", where="optim.name", fix=fix)
    if name.startswith("paged") and device.type != "cuda":
        what = f"optim.name={name} moves its moments out of a GPU's memory, and this run is on {device}"
        raise HoneError("M020", what, where="optim.name", fix="set optim.name=adamw_8bit, which works here, or adamw")


def moments(optimiser: torch.optim.Optimizer, master: nn.Parameter) -> dict[str, Tensor]:
    """All that the optimiser remembers of a weight, as tensors; tables that are the same for all weights are left out."""
    known = {key: value for key, value in optimiser.state[master].items() if not key.startswith("qmap")}
    return {key: value if isinstance(value, Tensor) else torch.tensor(value) for key, value in known.items()}


def recall(optimiser: torch.optim.Optimizer, kept: Mapping[nn.Parameter, Mapping[str, Tensor]]) -> None:
    """The inverse of `moments`, for all weights. An 8-bit optimiser makes its state itself, tables and pages included."""
    optimiser.state.clear()
    own: Any = optimiser
    for i, group in enumerate(optimiser.param_groups):
        for j, master in enumerate(group["params"]):
            known = kept.get(master)
            if not known:
                continue
            if isinstance(optimiser, torch.optim.AdamW):
                optimiser.state[master] = {key: _beside(master, value) for key, value in known.items()}
                continue
            own.init_state(group, master, i, j)
            state = optimiser.state[master]
            for key, value in known.items():
                state[key] = int(value) if key == "step" else state[key].copy_(value)


def _beside(master: nn.Parameter, value: Tensor) -> Tensor:
    """A copy of something that is remembered of a weight. Fused AdamW walks over weight and moments together: both lie in memory alike."""
    if value.shape != master.shape:
        return value.to(master.device, copy=True)
    return torch.empty_like(master, dtype=value.dtype).copy_(value)


def embedding_factors(model: nn.Module, moving: Mapping[str, nn.Parameter], optim: OptimSettings) -> list[float]:
    """Factor on the learning rate of each parameter: another one for embeddings and head, where `optim` wants it.

    Raises C053 where neither of them moves, so that the wish would change nothing.
    """
    if optim.embedding_learning_rate is None or optim.learning_rate is None:
        return [1.0] * len(moving)
    words = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]  # type: ignore[operator]
    ours = {id(parameter) for layer in words for parameter in layer.parameters()}
    if not any(id(parameter) in ours for parameter in moving.values()):
        what = "neither the embeddings nor the head move, so they have no learning rate of their own"
        raise HoneError("C053", what, where="optim.embedding_learning_rate", fix="leave it out, or train with tuning.method=full")
    factor = optim.embedding_learning_rate / optim.learning_rate
    return [factor if id(parameter) in ours else 1.0 for parameter in moving.values()]


def rate_at(step: int, total: int, optim: OptimSettings) -> float:
    """Learning rate of a step, counted from 1. The first step is never zero, and neither is the last."""
    assert optim.learning_rate is not None, "the recipe fills the learning rate"
    warmup = math.ceil(optim.warmup_ratio * total)
    if step <= warmup:
        return optim.learning_rate * step / warmup
    if optim.schedule == "constant":
        return optim.learning_rate
    left = (total - step + 1) / max(1, total - warmup)
    share = left if optim.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
    return optim.learning_rate * share
