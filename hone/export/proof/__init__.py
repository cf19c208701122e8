"""The certificate: what a trained model said and what its weights were, to be asked of every copy of it."""

from __future__ import annotations
