"""Finds text that a tokenizer cannot write: characters that become the unknown token, or nothing at all."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Container
from typing import TYPE_CHECKING, Literal

from hone.core.errors import HoneError
from hone.core.types import Example
from hone.data.encoding import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Fate = Literal["written", "unknown", "dropped"]
PROBE = "\U00010380"
"""A letter of Ugaritic: a tokenizer that can write it falls back to bytes, and can write everything."""


LIMIT = 0.01
"""Share of all characters that may be lost, row by row, before the whole text is refused."""
_FIX = "take a model whose tokenizer knows them, or replace them in the data"


class Script:
    """Which characters a tokenizer can write, and how many it could not. Raises T012 for a tokenizer without positions."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend, self._unknown = tokenizer.backend_tokenizer, tokenizer.unk_token_id
        self._special = Encoder(tokenizer).special
        self._fates: dict[str, Fate] = {}
        self.complete = self._fate(PROBE) == "written"
        self.characters, self.lost = 0, Counter[str]()

    def fault(self, example: Example) -> HoneError | None:
        """D034 for an example in which something is lost. Counts what it has seen, for `check`."""
        if self.complete:
            return None
        texts = texts_of(example)
        lost = sum((self.missing(text) for text in texts), Counter[str]())
        self.characters += sum(map(len, texts))
        self.lost += lost
        return HoneError("D034", f"the tokenizer cannot write {_shown(lost)}", where=str(example.origin), fix=_FIX) if lost else None

    @property
    def summary(self) -> str:
        """What could not be written so far; empty if nothing."""
        return f"the tokenizer cannot write {_shown(self.lost)}" if self.lost else ""

    def writes(self, tokens: Container[int]) -> bool:
        """Whether some tokens hold no unknown one."""
        return self.complete or self._unknown not in tokens

    def check(self, where: str) -> None:
        """Raise D034 where more than LIMIT of all characters were lost."""
        share = sum(self.lost.values()) / max(1, self.characters)
        if share > LIMIT:
            what = f"the tokenizer cannot write {share:.1%} of this text: {_shown(self.lost)} would be lost"
            raise HoneError("D034", what, where=where, fix=_FIX)

    def missing(self, text: str) -> Counter[str]:
        """The characters of a text that are lost, with their numbers."""
        if self.complete or all(self._fate(char) == "written" for char in set(text)):
            return Counter()
        # A tokenizer of whole words may know a letter inside of a word only, so the whole text is asked.
        return Counter(text[i] for i in self._unknowns(text)) + Counter(char for char in text if self._fate(char) == "dropped")

    def _fate(self, char: str) -> Fate:
        """What becomes of a character on its own. White space and invisible marks that vanish are no loss."""
        if char not in self._fates:
            within = f"a{char}a"
            if 1 in self._unknowns(within):
                self._fates[char] = "unknown"
            elif _visible(char) and self._ids(within) == self._ids("aa"):
                self._fates[char] = "dropped"
            else:
                self._fates[char] = "written"
        return self._fates[char]

    def _unknowns(self, text: str) -> set[int]:
        """Positions of a text that the unknown token stands for. Control tokens in it count as text."""
        if self._unknown is None:
            return set()
        plain = self._special.sub(lambda found: "a" * len(found[0]), text)
        encoding = self._backend.encode(plain, add_special_tokens=False)
        pieces = zip(encoding.ids, encoding.offsets, strict=True)
        return {i for id, (start, end) in pieces if id == self._unknown for i in range(start, end)}

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids


def texts_of(example: Example) -> list[str]:
    """Everything that people wrote in an example."""
    if example.text is not None:
        return [example.text]
    return list(dict.fromkeys(one.content for said in example.conversations for one in said))


def _visible(char: str) -> bool:
    return not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf")


def _shown(lost: Counter[str]) -> str:
    """The commonest lost characters, as `'é' (12), ...`."""
    shown = ", ".join(f"{char!r} ({count:,})" for char, count in lost.most_common(8))
    return f"{shown} and {len(lost) - 8} others" if len(lost) > 8 else shown
