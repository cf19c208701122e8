"""Texts to token ids with character positions, with control tokens only where the template wrote them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from hone.core.errors import HoneError
from hone.data.mould import either

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
_REAL, _CUT = "\ue000real\ue000", "\ue000cut\ue000"


class Encoded(NamedTuple):
    """Token ids, and the characters of the text that each stands for; neighbours touch."""

    ids: list[int]
    starts: list[int]
    ends: list[int]

    def straddled(self, position: int) -> bool:
        """Whether a token has characters on both sides of a position."""
        index = bisect_left(self.ends, position + 1)
        return index < len(self.ids) and self.starts[index] < position < self.ends[index]


class Encoder:
    """The tokenizer as templates need it: it adds no special tokens of its own. Raises T012 for a tokenizer without positions."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            what = f"{type(tokenizer).__name__} cannot tell which characters a token stands for"
            raise HoneError("T012", what, fix="convert it to a tokenizer.json (a fast tokenizer) and load that")
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        added = tokenizer.added_tokens_decoder
        self.controls = [token.content for token in added.values() if token.content.strip()]
        self.specials = [token.content for token in added.values() if token.special and token.content.strip()]
        self.special = either(self.specials)
        self._special_ids = {id for id, token in added.items() if token.special}

    def id_of(self, text: str) -> int | None:
        """The id of a single token."""
        return self._backend.token_to_id(text)

    def batch(self, texts: Sequence[str]) -> list[Encoded]:
        """Whole texts, as the tokenizer itself encodes them."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [_touching(encoding.ids, encoding.offsets) for encoding in encodings]

    def exact(self, text: str, *, plain: Sequence[Span] = (), cuts: Sequence[int] = ()) -> Encoded:
        """One text, with the control tokens inside `plain` encoded as ordinary text, and no token across any of `cuts`.

        Raises T005 where the tokenizer makes a control token of ordinary text.
        """
        if _REAL in text or _CUT in text:
            raise HoneError("T005", "the text holds private marks that are needed to tell control tokens from text", fix="remove the row")
        real = [found.start() for found in self.special.finditer(text) if not _touches(found.span(), plain)]
        marks = sorted([(position, 1, _REAL) for position in real] + [(position, 0, _CUT) for position in set(cuts)])
        pieces, done, length, behind = list[str](), 0, 0, [(0, 0)]
        for position, _, mark in marks:
            pieces += [text[done:position], mark]
            length += position - done + len(mark)
            behind.append((length, length - position))
            done = position
        encoding = self._marked[0].encode("".join([*pieces, text[done:]]), add_special_tokens=False)
        ids, offsets = self._without_marks(encoding.ids, encoding.offsets, behind)
        encoded = _touching(ids, offsets)
        self._check(encoded, plain, text)
        return encoded

    def _without_marks(self, ids: list[int], offsets: list[Span], behind: list[Span]) -> tuple[list[int], list[Span]]:
        """Drop the cuts, give control tokens their ids, and shift positions back by the marks in front of them."""
        _, own, cut = self._marked
        lengths = [length for length, _ in behind]

        def back(position: int) -> int:
            return position - behind[bisect_right(lengths, position) - 1][1]

        kept = [(own.get(id, id), span) for id, span in zip(ids, offsets, strict=True) if id != cut]
        return [id for id, _ in kept], [(max(back(a), 0), back(b)) for _, (a, b) in kept]

    @cached_property
    def _marked(self) -> tuple[Tokenizer, dict[int, int], int]:
        """A tokenizer of the same parts whose control tokens answer only to marked names; its ids to ours; the id of a cut."""
        from tokenizers import AddedToken, Tokenizer

        twin = Tokenizer(self._backend.model)
        if self._backend.normalizer is not None:
            twin.normalizer = self._backend.normalizer
        if self._backend.pre_tokenizer is not None:
            twin.pre_tokenizer = self._backend.pre_tokenizer
        ids: dict[int, int] = {}
        for id, token in sorted(self._backend.get_added_tokens_decoder().items()):
            marked = token.special and bool(token.content.strip())
            name = _REAL + token.content if marked else token.content
            flags = {"single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": token.normalized}
            twin.add_tokens([AddedToken(name, special=token.special, **flags)])
            ids[self._known(twin, name)] = id
        twin.add_tokens([AddedToken(_CUT, special=True, normalized=False)])
        return twin, ids, self._known(twin, _CUT)

    @staticmethod
    def _known(tokenizer: Tokenizer, name: str) -> int:
        """The id of a token that was just added."""
        id = tokenizer.token_to_id(name)
        assert id is not None
        return id

    def _check(self, encoded: Encoded, plain: Sequence[Span], text: str) -> None:
        for a, b in plain:
            first, last = bisect_right(encoded.ends, a), bisect_left(encoded.starts, b)
            if any(id in self._special_ids for id in encoded.ids[first:last]):
                what = f"the tokenizer makes a control token of the ordinary text {text[a:b]!r}"
                raise HoneError("T005", what, fix="remove it from the data")


def _touches(span: Span, others: Sequence[Span]) -> bool:
    return any(span[0] < b and a < span[1] for a, b in others)


def _touching(ids: list[int], offsets: list[Span]) -> Encoded:
    """Some tokenizers leave the space in front of a word out of its position: a token begins where the one before it ends."""
    ends = [b for _, b in offsets]
    return Encoded(ids, [min(a, done) for (a, _), done in zip(offsets, [0, *ends], strict=False)], ends)
