"""GGUF's types of numbers: which we write ourselves, which llama.cpp writes, how exact each is, and how far answers may move."""

from __future__ import annotations

from typing import NamedTuple

from hone.export.proof.compare import Band


class GgufType(NamedTuple):
    """A file type: what most matrices are stored as, and its number in `general.file_type`."""

    matrix: str
    file_type: int
    bits: float
    """Of a weight, scales included."""
    weighed: bool = False
    """Whether it cannot be made without an importance matrix."""


OURS = {
    "F32": GgufType("F32", 0, 32),
    "F16": GgufType("F16", 1, 16),
    "BF16": GgufType("BF16", 32, 16),
    "Q8_0": GgufType("Q8_0", 7, 8.5),
    "Q5_0": GgufType("Q5_0", 8, 5.5),
    "Q4_0": GgufType("Q4_0", 2, 4.5),
}
"""Written here, with the gguf package's quantisers."""
THEIRS = {
    "Q4_K_M": GgufType("Q4_K", 15, 4.9),
    "Q4_K_S": GgufType("Q4_K", 14, 4.6),
    "Q5_K_M": GgufType("Q5_K", 17, 5.7),
    "Q5_K_S": GgufType("Q5_K", 16, 5.6),
    "Q6_K": GgufType("Q6_K", 18, 6.6),
    "Q3_K_M": GgufType("Q3_K", 12, 3.9),
    "Q3_K_S": GgufType("Q3_K", 11, 3.5),
    "Q3_K_L": GgufType("Q3_K", 13, 4.3),
    "Q2_K": GgufType("Q2_K", 10, 3.2),
    "IQ4_NL": GgufType("IQ4_NL", 25, 4.6),
    "IQ4_XS": GgufType("IQ4_XS", 30, 4.4),
    "IQ3_M": GgufType("IQ3_S", 27, 3.8),
    "IQ3_S": GgufType("IQ3_S", 26, 3.7),
    "IQ3_XS": GgufType("IQ3_S", 22, 3.5, weighed=True),
    "IQ3_XXS": GgufType("IQ3_XXS", 23, 3.3, weighed=True),
    "Q2_K_S": GgufType("Q2_K", 21, 2.9, weighed=True),
    "IQ2_M": GgufType("IQ2_S", 29, 2.9, weighed=True),
    "IQ2_S": GgufType("IQ2_XS", 28, 2.7, weighed=True),
    "IQ2_XS": GgufType("IQ2_XS", 20, 2.5, weighed=True),
    "IQ2_XXS": GgufType("IQ2_XXS", 19, 2.3, weighed=True),
}
"""Written by llama.cpp from our F32 file, with an importance matrix where the training data is at hand.

Types of less than two bits are left out: no measurement could tell such a file from a broken one."""
TYPES = OURS | THEIRS

GGUF_ROUNDING = {
    "F32": 1e-6, "F16": 4e-4, "BF16": 2.5e-3, "Q8_0": 8e-3, "Q6_K": 0.02, "Q5_0": 0.05, "Q5_K": 0.04, "Q4_0": 0.1, "Q4_K": 0.08,
    "IQ4_NL": 0.09, "IQ4_XS": 0.09, "Q3_K": 0.17, "IQ3_S": 0.15, "IQ3_XXS": 0.2, "Q2_K": 0.3,
    "IQ2_S": 0.27, "IQ2_XS": 0.32, "IQ2_XXS": 0.4,
}  # fmt: skip
"""Relative error (Frobenius) of a matrix of ordinary numbers."""
GGUF_BANDS = {
    "F32": Band(2e-3, 1e-5), "F16": Band(0.1, 1e-3, 0.99), "BF16": Band(0.5, 1e-3, 0.98), "Q8_0": Band(1.0, 1e-2, 0.98),
    "Q6_K": Band(2.0, 0.03, 0.97),
    "Q5_0": Band(4.0, 0.1, 0.93), "Q5_K": Band(4.0, 0.1, 0.93), "Q4_0": Band(8.0, 0.3, 0.85), "Q4_K": Band(8.0, 0.25, 0.85),
    "IQ4_NL": Band(8.0, 0.3, 0.85), "IQ4_XS": Band(8.0, 0.3, 0.85), "Q3_K": Band(16.0, 0.8, 0.7), "IQ3_S": Band(16.0, 0.8, 0.7),
    "IQ3_XXS": Band(16.0, 1.0, 0.65), "Q2_K": Band(16.0, 3.0, 0.4), "IQ2_S": Band(16.0, 1.2, 0.6), "IQ2_XS": Band(16.0, 1.5, 0.6),
    "IQ2_XXS": Band(20.0, 3.0, 0.4), "other": Band(8.0, 0.3, 0.85),
}  # fmt: skip
"""How far answers may move. Small models move more than large ones; what a file was measured at stands in its README."""
