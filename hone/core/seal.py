"""JSON documents that carry a hash of all else they say, so that whoever reads them sees whether they were changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with its seal."""
    return {**document, SEAL: _hash(document)}


def whole(document: Mapping[str, Any]) -> bool:
    """Whether a document is what it was when it was sealed."""
    return document.get(SEAL) == _hash({key: value for key, value in document.items() if key != SEAL})


def _hash(document: Mapping[str, Any]) -> str:
    """The order of keys, and how JSON was laid out, do not count."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()
