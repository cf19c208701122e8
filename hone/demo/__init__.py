"""The embedded default: a made-up town (data) and a small pre-trained model (weights)."""

from __future__ import annotations

from pathlib import Path

from hone.demo.town import Document, Town

SEEDLING = Path(__file__).parent / "seedling"
"""Folder of the small base model that comes with the package."""

__all__ = ["SEEDLING", "Document", "Town"]
