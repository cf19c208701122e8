"""GGUF, the one-file format of llama.cpp: written from a model's weights, and read back without llama.cpp."""

from __future__ import annotations
