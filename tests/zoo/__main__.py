"""`python -m tests.zoo` prints the tables of docs/zoo.md."""

from __future__ import annotations

from tests.zoo import artifacts, folders, losses, models, rows, words
from tests.zoo.base import BUGS, FLAWS, table

if __name__ == "__main__":
    assert losses and models and artifacts and words and rows and folders, "they register what they keep"
    print(table(BUGS), table(FLAWS), sep="\n\n")
