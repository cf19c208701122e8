"""What leaves the house: adapters, merged models and GGUF files, each with the proof that it is the model that was trained."""

from __future__ import annotations

from hone.export import adapter, hub, merged, ollama, served
from hone.export.base import TARGETS, Artifact, Order, Source
from hone.export.gguf import target as gguf

__all__ = ["TARGETS", "Artifact", "Order", "Source", "adapter", "gguf", "hub", "merged", "ollama", "served"]
