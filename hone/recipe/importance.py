"""Which columns of a trained model's matrices matter: the mean square of what they meet in the data of the run.

llama.cpp's quantisers take it as an importance matrix, and put their rounding where it does least.

Shape legend: I input features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hone.core.errors import HoneError
from hone.core.types import Batch, Group
from hone.data.batching import micro_batches
from hone.data.prepare import prepare
from hone.data.sharing import size
from hone.models.policy import Policy
from hone.models.settings import HardwareSettings
from hone.recipe.opening import open_model
from hone.recipe.settings import resolve
from hone.rollout.sample import context_of

TOKENS, BUDGET = 32_768, 2048
"""Tokens of the training data that are read, and how many at a time."""
LEAST = 1e-4
"""Share of a matrix' mean that every column is worth: a quantiser must not give one up."""


def of_run(run: Path | None, resolved: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Tensor]:
    """Importance (I,) by the weight's name, from a run's own data; empty where there is no run, or its data is out of reach."""
    if run is None or resolved.get("rollout"):
        return {}
    opened = open_model(run, hardware=HardwareSettings(dtype="float32", device="cpu"))
    recipe, policy = resolve({key: value for key, value in resolved.items() if key != "reasons"}), opened.policy
    asked = {"shape": recipe.objective.data, "facts": recipe.objective.facts, "classes": recipe.objective.full.get("classes", ())}
    try:
        prepared = prepare(recipe.data, opened.tokenizer, opened.template, context=context_of(policy.model), **asked)
    except HoneError as error:
        tell(f"no importance matrix: the run's data cannot be read any more ({error.what})")
        return {}
    policy.tuning.merge(policy.model)
    groups = list(_first(prepared.groups[i] for i in range(len(prepared.groups))))
    tell(f"importance matrix: {sum(map(size, groups)):,} tokens of the training data")
    return importance(policy, micro_batches(groups, BUDGET))


def _first(groups: Iterable[Group]) -> Iterable[Group]:
    """The first groups, until they have enough tokens."""
    left = TOKENS
    for group in groups:
        yield group
        left -= size(group)
        if left <= 0:
            return


@torch.no_grad()
def importance(policy: Policy, batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Mean square (I,) of the input of every linear layer over all tokens, by the name of its weight."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[..., None]:
        def see(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            x = given[0].detach().flatten(0, -2).double()
            sums[name] = sums.get(name, torch.zeros(())) + x.square().sum(0)
            counts[name] = counts.get(name, 0) + len(x)

        return see

    policy.model.eval()
    with ExitStack() as stack:
        for name, module in policy.model.named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                stack.callback(module.register_forward_pre_hook(watch(f"{name}.weight")).remove)
        for batch in batches:
            policy.hidden(batch.to(policy.device))
    means = {name: sums[name] / counts[name] for name in sums}
    return {name: mean.clamp(min=float(mean.mean()) * LEAST).float().cpu() for name, mean in means.items()}
