"""From settings to living parts: model, template, policy, engine. The one place where rooms are joined for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from hone.core.types import Conversation, Group, Signals
from hone.core.world import World
from hone.data.batching import micro_batches
from hone.data.chat import ChatTemplate
from hone.models.judge import scores
from hone.models.kernels.fuse import fuse
from hone.models.load import Loaded, load
from hone.models.policy import Policy
from hone.models.settings import HardwareSettings, ModelSettings
from hone.objectives import Objective
from hone.train.stats import step_statistics
from hone.tuning import Tuning
from hone.tuning.packed import packed_layers


@dataclass(slots=True)
class Opened:
    """A model that can be asked: what chat, evaluation and training have in common."""

    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate
    resolved: dict[str, Any]
    folder: Path | None = None

    def score(self, conversations: Iterable[Conversation]) -> list[float]:
        """What a reward model says of conversations that end with an answer, higher for better. Raises C054 for other models."""
        return scores(self.policy, [(self.template.sequence(each),) for each in conversations]).tolist()


def load_base(model: ModelSettings, hardware: HardwareSettings) -> Loaded:
    """The base model in the asked type on the asked device, with fused modules where they compute the same."""
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    loaded = load(
        model.name,
        dtype=hardware.dtype,
        device=hardware.device,
        trust_remote_code=model.trust_remote_code,
        revision=model.revision,
        scheme=model.scheme,
    )
    if hardware.compile:
        for block in _blocks(loaded.model):
            block.compile(dynamic=True)
    else:
        fuse(loaded.model)
    return loaded


def _blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The model's repeated layers: the longest list of modules that it has."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(([*blocks] for blocks in lists), key=len, default=[])


def tuned(loaded: Loaded, tuning: Tuning, *, seed: int) -> Policy:
    """The base with its tuning attached."""
    tuning.attach(loaded.model, seed=seed)
    tuning.prime(loaded.model, lambda text: loaded.tokenizer.encode(text, add_special_tokens=False))
    return Policy.of(loaded.model, tuning)


def sizes(policy: Policy) -> dict[str, int]:
    """Parameters in all, those that move, and the model's width."""
    packed = sum(layer.in_features * layer.out_features for layer in packed_layers(policy.model).values())
    every = packed + sum(p.numel() for p in (*policy.model.parameters(), *policy.heads.parameters()))
    moving = sum(p.numel() for p in policy.trainable().values())
    return {"parameters": every, "trainable": moving, "hidden": policy.hidden_size}


@torch.no_grad()
def held_out_loss(
    policy: Policy,
    groups: Sequence[Group],
    objective: Objective,
    budget: int,
    between: Callable[[], None] = lambda: None,
    *,
    aside: Sequence[Group] = (),
    hear: Callable[[Signals], None] = lambda signals: None,
) -> Mapping[str, float]:
    """The objective's mean on groups that are never trained on, with every other number that it reports.

    `between` is called before each batch, and may raise to give it up; `hear` gets the signals of each.
    """
    batches = micro_batches(groups, budget) + micro_batches(aside, budget, aside=True)
    sums: dict[str, float] = {}
    for batch, step in zip(batches, step_statistics(policy, batches, objective, World()), strict=True):
        between()
        if batch.aside or not len(batch.read_N):
            continue
        signals = policy.signals(batch.to(policy.device), objective.needs)
        signals.step = step
        hear(signals)
        loss = objective(signals)
        for name, value in {"loss": loss.total, **loss.metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    total = sum(batch.count(objective.unit) for batch in batches)
    return {f"eval_{name}": value / total for name, value in sums.items()}
