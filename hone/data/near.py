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


def near_duplicates(texts: Iterable[tuple[Origin, str]]) -> list[Near]:
    """For each text that nearly equals an earlier one, the first such. Equal texts count too."""
    import numpy

    draw = numpy.random.default_rng(0)
    factors = draw.integers(1, _PRIME, (2, HASHES, 1), dtype=numpy.uint64)
    met: dict[tuple[int, bytes], list[Origin]] = defaultdict(list)
    signatures: dict[Origin, NDArray[uint64]] = {}
    found: list[Near] = []
    for row, text in texts:
        triples = numpy.array(_triples(text), dtype=numpy.uint64)
        signature = ((factors[0] * triples + factors[1]) % _PRIME).min(axis=1)
        bands = [(i, part.tobytes()) for i, part in enumerate(signature.reshape(BANDS, -1))]
        earlier = dict.fromkeys(other for band in bands for other in met[band])
        shares = ((other, float((signature == signatures[other]).mean())) for other in earlier)
        if (near := next((pair for pair in shares if pair[1] >= ALIKE), None)) is not None:
            found.append(Near(row, *near))
            continue
        signatures[row] = signature
        for band in bands:
            met[band].append(row)
    return found


def _triples(text: str) -> list[int]:
    """Hashes of three neighbouring words; of characters, where a script writes no spaces."""
    plain = normalised(text)
    words = plain.split()
    if len(plain) > 12 * max(1, len(words)):
        words = list(plain.replace(" ", ""))
    triples = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    return [zlib.crc32(triple.encode("utf-8", "replace")) for triple in triples]
