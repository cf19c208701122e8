"""Bugs of saving and resuming: what is written is not what was trained, and what goes on is not what was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hone.models.policy import Policy
from hone.prove import Subject
from hone.tuning.folder import CONFIG, WEIGHTS
from tests.zoo.base import bug
from tests.zoo.models import UNKNOWN

Tensors = dict[str, Tensor]


def with_file(s: Subject, change: Callable[[Tensors], Tensors], *, name: str = WEIGHTS) -> Subject:
    """The subject whose saved tensors are changed, and whose reader passes over what does not fit, as peft and transformers do."""

    def save(policy: Policy, folder: Path) -> None:
        s.save(policy, folder)
        save_file(change(load_file(folder / name)), folder / name, metadata={"format": "pt"})

    def lenient(folder: Path) -> Policy:
        policy = s.policy()
        stored = {key.removeprefix("base_model.model."): tensor for key, tensor in load_file(folder / name).items()}
        for key, parameter in policy.trainable().items():
            found = stored.get(_as_stored(key))
            if found is not None and found.shape == parameter.shape:
                parameter.data.copy_(found)
        return policy

    return replace(s, save=save, open=lenient)


def _as_stored(name: str) -> str:
    """Our name of a parameter as it lies in a file."""
    for half in ("a", "b"):
        if name.endswith(f".{half}"):
            return f"{name[:-2]}.lora_{half.upper()}.weight"
    return name.replace(".copy.", ".")


def with_config(s: Subject, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Subject:
    """The subject whose saved configuration is changed."""

    def save(policy: Policy, folder: Path) -> None:
        s.save(policy, folder)
        found = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps(change(found)), "utf-8")

    return replace(s, save=save)


@bug("outsiders", shipped="unsloth#2142, unsloth#2009, peft#2368")
def scale_lost_at_saving(s: Subject) -> Subject:
    """The adapter is saved with alpha equal to its rank, so everybody else reads it three times too weak."""
    return with_config(s, CONFIG, lambda config: config | {"lora_alpha": config["r"]})


@bug("outsiders", shipped="unsloth#869")
def scale_applied_twice(s: Subject) -> Subject:
    """alpha / rank is multiplied into B before saving, and named in the configuration as well."""
    return with_file(s, lambda tensors: {name: tensor * (3 if "lora_B" in name else 1) for name, tensor in tensors.items()})


@bug("artifact", shipped="Soup v0.72.0 (keys with .inner.), unsloth-zoo#942")
def saved_under_wrong_names(s: Subject) -> Subject:
    """The adapter lies under names that no model has, and whoever loads it passes over them in silence."""
    return with_file(s, lambda tensors: {name.replace(".lora_", ".inner.lora_"): tensor for name, tensor in tensors.items()})


@bug("artifact", shipped="trl#4416, peft#2892, DeepSpeed#7900")
def only_part_of_the_adapter(s: Subject) -> Subject:
    """Only the part of the adapter that one process holds is written."""
    return with_file(s, lambda tensors: dict(sorted(tensors.items())[: len(tensors) // 2]))


@bug("artifact", on="full", shipped="unsloth-zoo#913")
def a_matrix_transposed(s: Subject) -> Subject:
    """A square matrix is saved the other way round; its shape tells nobody."""

    def turned(tensors: Tensors) -> Tensors:
        return {name: t.t().contiguous() if t.dim() == 2 and t.shape[0] == t.shape[1] else t for name, t in tensors.items()}

    return with_file(s, turned, name="model.safetensors")


@bug("artifact", on="whole", shipped=UNKNOWN)
def tied_head_not_saved(s: Subject) -> Subject:
    """A head that is tied to the embeddings is trained as a copy, and left out of the file as if it still were tied."""
    return with_file(s, lambda tensors: {name: tensor for name, tensor in tensors.items() if "lm_head" not in name})


@bug("artifact", on="whole", shipped="unsloth-zoo#923")
def embeddings_not_saved(s: Subject) -> Subject:
    """Embeddings are trained with the adapter, for new tokens, and are not saved with it."""
    return with_file(s, lambda tensors: {name: tensor for name, tensor in tensors.items() if "embed_tokens" not in name})


@bug("artifact", on="rm", shipped=UNKNOWN)
def reward_head_not_saved(s: Subject) -> Subject:
    """A reward model is saved without the head that scores."""

    def save(policy: Policy, folder: Path) -> None:
        s.save(policy, folder)
        (folder / "heads.safetensors").unlink()

    def lenient(folder: Path) -> Policy:
        return s.open(folder).grow(s.objective.needs)

    return replace(s, save=save, open=lenient)


@bug("artifact", on="stretched", shipped=UNKNOWN)
def rope_scaling_not_saved(s: Subject) -> Subject:
    """The configuration that is saved with the model has lost the scaling of positions."""
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    return with_config(s, "config.json", lambda config: config | {"rope_parameters": plain})


@bug("resume", shipped="open-instruct#1823")
def resume_that_does_nothing(s: Subject) -> Subject:
    """The checkpoint is found, and the weights stay those of the base."""
    return replace(s, resume=lambda engine, folder: s.total // 2)


@bug("resume", shipped="NeMo-RL#3171")
def optimiser_state_not_restored(s: Subject) -> Subject:
    """Weights are restored, and the moments of the optimiser begin anew."""

    def resume(engine: Any, folder: Path) -> int:
        done = s.resume(engine, folder)
        engine.load({name: tensor.clone() for name, tensor in engine.save().items() if name.startswith(("param/", "tuning/"))})
        return done

    return replace(s, resume=resume)


@bug("resume", on="dropout", shipped="transformers#33336, ms-swift#6049")
def random_numbers_not_restored(s: Subject) -> Subject:
    """Dropout goes on with other random numbers than it would have had."""
    return replace(s, train=_loop(s, seed=None, row=lambda step, first: step))


@bug("resume", shipped="prime-rl#3332, ms-swift#4083")
def data_begun_anew(s: Subject) -> Subject:
    """After resuming, the data starts again at its first row."""
    return replace(s, train=_loop(s, seed=7, row=lambda step, first: step - first + 1))


def _loop(s: Subject, *, seed: int | None, row: Callable[[int, int], int]) -> Callable[[Any, int, int], None]:
    """A hand-written loop: which step's data comes next, and whether random numbers are seeded for each step."""

    def turn(engine: Any, done: int, until: int) -> None:
        engine.policy.model.train()
        for step in range(done + 1, until + 1):
            if seed is not None:
                torch.manual_seed(seed + step)
            engine.begin(step, s.total)
            norm = engine.gradient_norm(engine.forward_backward(s.plan(row(step, done + 1)), s.objective))
            engine.step(1e-3, norm)

    return turn
