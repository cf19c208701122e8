"""Post-training for language models that proves what it did. Nothing is imported until it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "hone.core.errors": ("HoneError",),
    "hone.core.types": ("Batch", "Example", "Group", "Loss", "Message", "Sequence", "Signals"),
    "hone.data.batching": ("micro_batches",),
    "hone.data.chat": ("ChatTemplate",),
    "hone.data.offline": ("Offline",),
    "hone.models.load": ("load",),
    "hone.models.policy": ("Policy",),
    "hone.objectives": ("OBJECTIVES", "objective"),
    "hone.rollout.sample": ("Sampler",),
    "hone.train.engine": ("Engine",),
    "hone.train.settings": ("OptimSettings",),
    "hone.tuning": ("METHODS",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 (names of the table above)


def __getattr__(name: str) -> Any:
    """The public low-level API: `hone.Engine` imports its module when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hone' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
