"""The `data` section of a run file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt, MinLen

from hone.core.config import settings

Overflow = Literal["truncate", "drop", "split", "error"]
Learn = Literal["assistant", "last", "all"]


@settings
class Source:
    """One of several sources."""

    path: str
    """File, folder or hub id."""
    weight: Annotated[float, Gt(0)] = 1.0
    """How often its rows are seen in an epoch: 0.5 keeps a seeded half of them, 2.0 takes each twice."""


@settings
class DataSettings:
    """What is learned from."""

    train: str | Annotated[tuple[str | Source, ...], MinLen(1)]
    """File (jsonl, json, csv, tsv, parquet, txt, also with .gz), folder or hub id; or a list of these or of {path, weight}."""
    held_out: Annotated[float, Ge(0), Lt(1)] | str = 0.1
    """Share of the conversations kept aside for evaluation, or a source of its own. 0 keeps none."""
    format: str = "auto"
    """Format of the rows (see `hone list formats`); auto recognises it by the columns."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column -> its name in the source, where it is not recognised: {prompt: user_query}."""
    template: str = "auto"
    """Chat template: auto is the tokenizer's own, or chatml for a base model without one."""
    system: str | None = None
    """System prompt for conversations that come without one."""
    learn: Learn = "assistant"
    """Which turns are learned: every answer, the last answer, or all text."""
    max_length: Annotated[int, Ge(2)] = 2048
    """Longest sequence in tokens."""
    overflow: Overflow = "truncate"
    """Longer ones: keep the beginning, drop the row, split it into pieces, or stop. Raw text is split where truncate is asked for."""
    skip_bad: bool = False
    """Leave out rows that cannot be read, and count them, instead of stopping at the first."""
    shuffle: bool = True
    """Another order of the rows in each epoch."""
    seed: Annotated[int, Ge(0), Lt(2**63)] = 42
    """Decides which conversations are held out, and which rows a weight keeps."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The training sources, each with its weight."""
        listed = (self.train,) if isinstance(self.train, str) else self.train
        return tuple(Source(path=item) if isinstance(item, str) else item for item in listed)
