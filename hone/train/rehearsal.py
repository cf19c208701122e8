"""What can fail fails in the first minute: the worst micro-batch, the worst evaluation and a save, before the first step.

Nothing is left behind: no weight moves, gradients and the room taken for the optimiser are given back, and the generators
of random numbers stand where they stood.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors.torch import load_file

from hone.core.errors import HoneError
from hone.core.types import Batch
from hone.models import tensorfile
from hone.objectives.base import Objective
from hone.train.engine import Engine

LARGEST = 2 << 30
"""Bytes of a checkpoint beyond which writing one for nothing would take minutes; the room for it is checked in any case."""


@runtime_checkable
class Foreseeable(Protocol):
    """A source that knows its batches in advance."""

    def worst(self) -> list[Batch]: ...


@contextmanager
def undisturbed(engine: Engine) -> Iterator[None]:
    """Leaves the model's mode, the gradients (there must be none) and all random numbers as they were."""
    training, cpu = engine.policy.model.training, torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        engine.forget()
        engine.policy.model.train(training)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


def rehearse(engine: Engine, batches: Sequence[Batch], objective: Objective, *, evaluate: Callable[[], object] | None = None) -> float:
    """Go through the worst of a run once: a step's forward, backward and room for the optimiser, then an evaluation. Returns seconds.

    `batches` are the heaviest micro-batch of the plan (see `Offline.worst`). Raises M091 where even its smallest pieces do not fit.
    """
    started = time.perf_counter()
    with undisturbed(engine):
        engine.policy.model.train()
        engine.forward_backward(batches, objective)
        gradients = engine.masters.gradients()
        moments = [torch.zeros_like(gradient) for gradient in gradients for _ in range(2)] if not engine.optimizer.state else []
        assert len(moments) in (0, 2 * len(gradients))
        del moments
        if evaluate is not None:
            engine.policy.model.eval()
            evaluate()
    return time.perf_counter() - started


def rehearse_save(engine: Engine, folder: Path, write: Callable[[Path], object]) -> bool:
    """Write a checkpoint's tensors and the artifact beside the run, read the tensors back, and remove both.

    False where the checkpoint is so large that it was not written. Raises F018 where what is read back differs.
    """
    tensors = engine.save()
    if tensorfile.size(tensors) > LARGEST:
        return False
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-rehearsal-") as place:
        file = Path(place) / "tensors.safetensors"
        with file.open("wb") as out:
            for piece in tensorfile.pieces(tensors):
                out.write(piece)
        back = load_file(file)
        wrong = [name for name, tensor in tensors.items() if not torch.equal(back[name], tensor.cpu())]
        if wrong and not any(tensors[name].isnan().any() for name in wrong):
            raise HoneError("F018", f"what was written is not what is read back ({wrong[0]})", where=str(folder), fix="use another disk")
        write(Path(place) / "artifact")
    return True
