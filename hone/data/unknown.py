"""Finds text that a tokenizer cannot write: characters that become <unk>, or nothing at all."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

from hone.core.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "\U00010380"
"""A letter of Ugaritic: a tokenizer that can write it falls back to bytes, and can write everything."""


class Script:
    """Which characters a tokenizer can write."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._writable = cache(lambda char: not self._gaps(f"a{char}a")[1:2] or char.isspace())
        self.complete = not self._gaps(PROBE)

    def missing(self, text: str) -> Counter[str]:
        """The characters of a text that are lost, with their numbers. Spaces and invisible marks are not counted."""
        if self.complete or all(map(self._writable, set(text))):
            return Counter()
        return Counter(text[i] for i in self._gaps(text) if unicodedata.category(text[i]) not in ("Cc", "Cf") and not text[i].isspace())

    def _gaps(self, text: str) -> list[int]:
        """Positions of a text that no token stands for, or only the unknown token."""
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
        known, unknown = set[int](), set[int]()
        for id, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            (unknown if id == self._tokenizer.unk_token_id else known).update(range(start, end))
        return [i for i in range(len(text)) if i in unknown or i not in known]


def texts_of(example: Example) -> list[str]:
    """Everything that people wrote in an example."""
    if example.text is not None:
        return [example.text]
    return list(dict.fromkeys(one.content for said in example.conversations for one in said))
