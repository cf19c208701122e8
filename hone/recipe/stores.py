"""What several runs of one process have in common, read once: the base model and the tokenised data."""

from __future__ import annotations

import json
from typing import Any

from hone.data.chat import ChatTemplate
from hone.data.prepare import Prepared
from hone.models.load import Loaded
from hone.recipe.build import load_base
from hone.recipe.feed import prepared_for
from hone.recipe.opening import Bases
from hone.recipe.settings import Recipe
from hone.rollout.sample import context_of


class Stores:
    """Gives each run a model of its own; only weights that no run moves, and data, are the same."""

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self._bases = Bases()
        self._data: dict[str, Prepared] = {}

    def load(self, recipe: Recipe) -> Loaded:
        """The base; from disk again for a method that writes into it. Raises the M codes of `hone.models.load`."""
        if not self.shared or not leaves_base_alone(recipe):
            return load_base(recipe.model, recipe.hardware)
        return self._bases(recipe.model, recipe.hardware)

    def prepare(self, recipe: Recipe, loaded: Loaded, template: ChatTemplate) -> Prepared:
        """The data as tokens. Raises the D codes of `prepare`."""
        if not self.shared:
            return prepared_for(recipe, loaded, template)
        key = _key(recipe, loaded)
        if key not in self._data:
            self._data[key] = prepared_for(recipe, loaded, template)
        return self._data[key]


def leaves_base_alone(recipe: Recipe) -> bool:
    """Whether a method trains small matrices only, and starts from the base as it is."""
    tuning = recipe.resolved["tuning"]
    if tuning["method"] not in ("lora", "dora") or recipe.model.scheme is not None:
        return False
    return tuning["init"] != "loftq" and not tuning["train"]


def _key(recipe: Recipe, loaded: Loaded) -> str:
    """All that the tokens depend on."""
    objective = recipe.objective
    asked: dict[str, Any] = {
        "data": recipe.resolved["data"],
        "rollout": recipe.resolved.get("rollout"),
        "model": loaded.base,
        "shape": objective.data,
        "facts": objective.facts,
        "classes": list(objective.full.get("classes", ())),
        "room": recipe.tuning.room(context_of(loaded.model)),
    }
    return json.dumps(asked, sort_keys=True, default=str)
