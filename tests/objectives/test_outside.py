"""A loss in a user's own file is an objective like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.core.errors import HoneError
from hone.objectives import OBJECTIVES
from hone.recipe.settings import resolve
from hone.recipe.words import read

SOURCE = '''
from hone import Loss, objective

@objective(needs="logp", unit="token")
def {name}(s, *, power: float = 2.0) -> Loss:
    """Likelihood to a power."""
    return Loss(s.sum((-s.logp) ** power).sum())
'''


def test_an_objective_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(SOURCE.format(name="mine_to_a_power"))
    for _ in range(2):
        raw, _ = read(f"{file}:mine_to_a_power", ["model=a/b", "data=x.jsonl", "objective.power=3"])
        recipe = resolve(raw)
        assert recipe.objective.name == "mine_to_a_power" and recipe.resolved["objective"]["power"] == 3.0
    OBJECTIVES._things.pop("mine_to_a_power")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("x = 1\n")
    for name in (f"{file}:loss", f"{tmp_path / 'other.py'}:loss"):
        raw, _ = read(name, ["model=a/b", "data=x.jsonl"])
        with pytest.raises(HoneError) as caught:
            resolve(raw)
        assert caught.value.code == "C055"
