"""Which weights may move. Importing this fills the registry of methods."""

from __future__ import annotations

from hone.tuning import full, lora
from hone.tuning.base import METHODS, Tuning, trainable

__all__ = ["METHODS", "Tuning", "full", "lora", "trainable"]
