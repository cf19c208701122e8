"""Which weights may move. Importing this fills the registry of methods."""

from __future__ import annotations

from hone.tuning import full, lora
from hone.tuning.base import METHODS, About, Beside, Ours, Prologue, Tuning, prologue_of, trainable

__all__ = ["METHODS", "About", "Beside", "Ours", "Prologue", "Tuning", "full", "lora", "prologue_of", "trainable"]
