"""Which weights may move. Importing this fills the registry of methods."""

from __future__ import annotations

from hone.tuning import adalora, bitfit, bridge, dora, freeze, full, ia3, lora, prefix, prompt  # noqa: F401, each registers itself
from hone.tuning.base import METHODS, About, Beside, Ours, Prologue, Tuning, prologue_of, trainable

__all__ = ["METHODS", "About", "Beside", "Ours", "Prologue", "Tuning", "prologue_of", "trainable"]
