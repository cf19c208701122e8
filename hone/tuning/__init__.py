"""Which weights may move. Importing this fills the registry of methods."""

from __future__ import annotations

# Each of these registers itself.
from hone.tuning import (  # noqa: F401
    adalora,
    adapter,
    bitfit,
    bridge,
    dora,
    freeze,
    full,
    fusion,
    ia3,
    lora,
    mam,
    prefix,
    prompt,
    unipelt,
)
from hone.tuning.base import METHODS, About, Beside, Ours, Prologue, Tuning, prologue_of, trainable

__all__ = ["METHODS", "About", "Beside", "Ours", "Prologue", "Tuning", "prologue_of", "trainable"]
