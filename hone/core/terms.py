"""The words of the trade, explained in a few lines each: the glossary behind `hone explain`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hone.core.yamlfile import read_yaml


class Term(NamedTuple):
    """One word. `names` are what people call it, the first as it is shown; `see` are keys of other terms."""

    names: tuple[str, ...]
    en: str
    zh: str
    setting: str
    """The setting that it is about, or ""."""
    see: tuple[str, ...]


@cache
def glossary() -> dict[str, Term]:
    """Every term by its key, read from `hone/core/terms.yaml`."""
    raw = read_yaml(Path(__file__).parent / "terms.yaml")
    return {
        key: Term(tuple(entry["names"]), entry["en"].strip(), _joined(entry["zh"]), entry.get("setting", ""), tuple(entry.get("see", ())))
        for key, entry in raw.items()
    }


def _joined(text: str) -> str:
    """Chinese has no spaces, and YAML puts one where it joins two lines."""
    return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])", "", text.strip())
