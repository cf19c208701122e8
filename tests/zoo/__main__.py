"""`python -m tests.zoo` prints the table of docs/zoo.md."""

from __future__ import annotations

from tests.zoo import artifacts, losses, models, words
from tests.zoo.base import table

if __name__ == "__main__":
    assert losses and models and artifacts and words, "they register their bugs"
    print(table())
