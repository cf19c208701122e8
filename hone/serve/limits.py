"""How much one server takes on: sizes that keep a stranger's mistake from becoming everybody's outage."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """All limits of a server."""

    rows: int = 32
    """Answers that are written at a time, for each model."""
    queue: int = 256
    """Answers that may wait; more are refused with 429."""
    cache_bytes: int = 2 << 30
    """Memory for keys and values, for each model."""
    body_bytes: int = 4 << 20
    """A larger request is refused with 400."""
    body_seconds: float = 30.0
    """A request whose body takes longer to arrive is refused."""
    max_tokens: int = 4096
    """Longest answer that may be asked for; 512 where a request names none."""
    choices: int = 16
    """Most answers to one prompt (n)."""
    inputs: int = 256
    """Most texts in one request for embeddings or completions."""
    positions: int = 8192
    """Longest prompt and answer together, for models that know no limit of their own."""


DEFAULT_TOKENS = 512
