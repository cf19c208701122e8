"""Finds texts that are nearly the same, by MinHash: signatures of word triples, compared only where a band of them is equal."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from hone.core.types import Origin
from hone.data.split import normalised

if TYPE_CHECKING:
    from numpy import uint64
    from numpy.typing import NDArray

HASHES, BANDS = 64, 16
"""With 16 bands of 4 hashes, texts that share 80 % of their triples meet with a chance of 99.98 %, at 30 % with 12 %."""
ALIKE = 0.8
"""Share of equal hashes from which two texts count as nearly the same; an estimate of the share of equal triples."""
_PRIME = 2**31 - 1


class Near(NamedTuple):
    """A row, an earlier one that is nearly the same, and how much they share."""

    row: Origin
    earlier: Origin
    share: float


Text = tuple[Origin, str]


def near_duplicates(texts: Iterable[Text]) -> list[Near]:
    """For each text that nearly equals an earlier one, the first such. Equal texts count too."""
    known, found = _Known(), list[Near]()
    for row, text in texts:
        signature = known.signature(text)
        if (near := known.like(row, signature)) is not None:
            found.append(near)
        else:
            known.add(row, signature)
    return found


def near_rows(texts: Iterable[Text], *, among: Iterable[Text]) -> list[Near]:
    """For each text that nearly equals one `among` others, the first such."""
    known = _Known()
    for row, text in among:
        known.add(row, known.signature(text))
    nearest = (known.like(row, known.signature(text)) for row, text in texts)
    return [near for near in nearest if near is not None]


class _Known:
    """Signatures of texts, found again by their bands."""

    def __init__(self) -> None:
        import numpy

        self._factors = numpy.random.default_rng(0).integers(1, _PRIME, (2, HASHES, 1), dtype=numpy.uint64)
        self._met: dict[tuple[int, bytes], list[Origin]] = defaultdict(list)
        self._signatures: dict[Origin, NDArray[uint64]] = {}

    def signature(self, text: str) -> NDArray[uint64]:
        import numpy

        triples = numpy.array(_triples(text), dtype=numpy.uint64)
        made: NDArray[uint64] = ((self._factors[0] * triples + self._factors[1]) % _PRIME).min(axis=1)
        return made

    def like(self, row: Origin, signature: NDArray[uint64]) -> Near | None:
        """The first known text that is nearly the same."""
        candidates = dict.fromkeys(other for band in _bands(signature) for other in self._met[band])
        shares = ((other, float((signature == self._signatures[other]).mean())) for other in candidates)
        return next((Near(row, other, share) for other, share in shares if share >= ALIKE), None)

    def add(self, row: Origin, signature: NDArray[uint64]) -> None:
        self._signatures[row] = signature
        for band in _bands(signature):
            self._met[band].append(row)


def _bands(signature: NDArray[uint64]) -> list[tuple[int, bytes]]:
    return [(i, part.tobytes()) for i, part in enumerate(signature.reshape(BANDS, -1))]


def _triples(text: str) -> list[int]:
    """Hashes of three neighbouring words; of characters, where a script writes no spaces."""
    plain = normalised(text)
    words = plain.split()
    if len(plain) > 12 * max(1, len(words)):
        words = list(plain.replace(" ", ""))
    triples = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    return [zlib.crc32(triple.encode("utf-8", "replace")) for triple in triples]
