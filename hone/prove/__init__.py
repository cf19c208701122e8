"""Equivalence proofs of a user's own run, carried out on a shrunken copy of it; each is a pure function of a `Subject`."""

from __future__ import annotations

from hone.prove import credits, keeping, moving, reading, stepping, texts, wishes, writing  # noqa: F401  (they register their proofs)
from hone.prove.base import PROOFS, Result, prove
from hone.prove.subject import Row, Subject

__all__ = ["PROOFS", "Result", "Row", "Subject", "prove"]
