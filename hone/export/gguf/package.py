"""The gguf package, an extra: it writes the container and knows the blocks of quantised numbers."""

from __future__ import annotations

from typing import Any

from hone.core.errors import HoneError


def gguf_package() -> Any:
    """The package. Raises F044 where it is not installed."""
    try:
        import gguf
    except ImportError:
        raise HoneError("F044", "GGUF files need the package gguf", where="--to gguf", fix="pip install 'hone-llm[gguf]'") from None
    return gguf
