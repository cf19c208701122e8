"""The open settings of a run, filled by the same plan that `hone plan` shows: from the data as it is and the memory that is free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.data.prepare import Prepared
from hone.models.load import Loaded
from hone.plan.advise import Advice, Facts, fill
from hone.plan.fit import settle
from hone.plan.hardware import hardware
from hone.plan.machines import here
from hone.plan.memory import CONTEXT, Work, weight_bytes
from hone.recipe import forecast
from hone.recipe.settings import Recipe, resolve


def advised(raw: Mapping[str, Any], recipe: Recipe, prepared: Prepared, loaded: Loaded) -> Recipe:
    """The recipe with its open settings filled, and the reasons beside them."""
    weight = next(loaded.model.parameters())
    dtype = str(weight.dtype).removeprefix("torch.")
    tokens = forecast.tokens_of(prepared, batch=recipe.optim.batch_size)
    folder = Path(str(loaded.model.config.name_or_path))
    facts = forecast.known_facts(folder)
    own, _, linear, widest = forecast.sizes_of(recipe.resolved, facts, folder)
    work = Work(facts=facts, adapters=own, linear=linear, largest=widest, dtype=dtype, device=weight.device.type)
    capacity = here(hardware("."), weight.device.type).usable + round(weight_bytes(work)) + CONTEXT[work.device]
    chosen = settle(
        recipe.resolved["hardware"], tokens.worst, capacity, lambda budget: forecast.at_budget(work, tokens, recipe.resolved, budget)
    )
    advice = fill(recipe.resolved, Facts(tokens.rows, facts.hidden, recipe.tuning.about.learning_rate, recipe.objective.pace))
    advice += [*chosen.advice, Advice("hardware.dtype", dtype, loaded.notes[0].partition(": ")[2])]
    if prepared.classes:
        advice.append(Advice("objective.classes", prepared.classes, f"the {len(prepared.classes)} classes of the data"))
    full = resolve(forecast.with_advice(raw, advice))
    full.resolved["reasons"] = {key: reason for key, _, reason in advice}
    return full
