"""The open settings of a run, filled by the same plan that `hone plan` shows: from the data as it is and the memory that is free."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from hone.data.chat import ChatTemplate
from hone.data.notices import Notice
from hone.data.prepare import Prepared
from hone.models.load import Loaded
from hone.models.reach import mute
from hone.objectives.base import asked
from hone.plan.advise import Advice, Facts, fill
from hone.plan.fit import settle
from hone.plan.hardware import hardware
from hone.plan.machines import here
from hone.plan.memory import CONTEXT, MOMENTS, Work, weight_bytes
from hone.recipe import forecast
from hone.recipe.quantised import share_in
from hone.recipe.settings import Recipe, resolve
from hone.tuning.lora import Lora
from hone.tuning.shapes import Shapes
from hone.tuning.whole import is_whole

LOOKED_AT = 64
"""Groups in which the tokens are looked for that an answer needs."""
FREQUENT = 128
"""Of its words, only so many are asked for."""
SHOWN = 6
"""Tokens that are named."""


def advised(raw: Mapping[str, Any], recipe: Recipe, prepared: Prepared, loaded: Loaded, template: ChatTemplate) -> Recipe:
    """The recipe with its open settings filled, and the reasons beside them."""
    weight = next(loaded.model.parameters())
    dtype = str(weight.dtype).removeprefix("torch.")
    tokens = forecast.tokens_of(prepared, batch=recipe.optim.batch_size)
    folder = Path(str(loaded.model.config.name_or_path))
    facts = forecast.known_facts(folder)
    own, _, linear, widest = forecast.sizes_of(recipe.resolved, facts, folder)
    share = share_in(recipe.resolved, facts, folder)
    work = Work(
        facts=facts, adapters=own, linear=share.numbers or linear, largest=widest, quantised=share.kind, packed=share.nbytes,
        dtype=dtype, device=weight.device.type, moments=MOMENTS[recipe.optim.name],
        reference=recipe.copies,
    )  # fmt: skip
    capacity = here(hardware("."), weight.device.type).usable + round(weight_bytes(work)) + CONTEXT[work.device]
    chosen = settle(
        recipe.resolved["hardware"], tokens.worst, capacity, lambda budget: forecast.at_budget(work, tokens, recipe.resolved, budget)
    )
    found = fill(recipe.resolved, Facts(tokens.rows, facts.hidden, recipe.tuning.about.learning_rate, recipe.objective.pace))
    found += [*chosen.advice, Advice("hardware.dtype", dtype, loaded.notes[0].partition(": ")[2])]
    found += _unsayable(recipe, prepared, loaded, template)
    prepared.notices.extend(_still(recipe, Shapes.of(loaded.model)))
    if prepared.classes:
        found.append(Advice("objective.classes", prepared.classes, f"the {len(prepared.classes)} classes of the data"))
    full = resolve(forecast.with_advice(raw, found))
    full.resolved["reasons"] = {key: reason for key, _, reason in found}
    return full


def _still(recipe: Recipe, shapes: Shapes) -> list[Notice]:
    """M046 where a LoRA of a mixture leaves all experts as they are, which hold most of its weights."""
    if not shapes.experts or not isinstance(recipe.tuning, Lora) or set(recipe.tuning.chosen(shapes)) & shapes.experts.keys():
        return []
    share = sum(math.prod(shape) for shape in shapes.experts.values()) / sum(math.prod(shape) for shape in shapes.parameters.values())
    return [Notice("M046", f"the experts, {100 * share:.0f} % of this model's weights, stay as they are", 0, "")]


def _unsayable(recipe: Recipe, prepared: Prepared, loaded: Loaded, template: ChatTemplate) -> list[Advice]:
    """Rows to move for tokens that answers need and the frozen head cannot say, their end above all; M102 where none can move."""
    settings: dict[str, Any] = asdict(recipe.tuning)  # type: ignore[call-overload]
    shapes = Shapes.of(loaded.model)
    moves = recipe.tuning.about.artifact == "model" or is_whole(shapes.head, settings.get("train") or ())
    if moves or settings.get("tokens") is not None or "logp" not in asked(recipe.objective.needs):
        return []
    first = [sequence for group in islice(prepared.groups, LOOKED_AT) for sequence in group]
    learned = Counter(token for each in first for token, weight in zip(each.tokens, each.weights, strict=True) if weight)
    ends = sorted(learned.keys() & {*template.stop_ids})
    silent = mute(loaded.model, dict.fromkeys([*ends, *(token for token, _ in learned.most_common(FREQUENT))]))
    if not silent:
        return []
    names = [str(loaded.tokenizer.convert_ids_to_tokens(token)) for token in silent]
    others = f" and {len(names) - SHOWN} others" if len(names) > SHOWN else ""
    least = f"{'one of them' if names[1:] else 'it'} a chance of {100 * min(silent.values()):.2g} % at most"
    why = f"the base never learned {', '.join(names[:SHOWN])}{others}: its frozen head can give {least}"
    if isinstance(recipe.tuning, Lora) and recipe.tuning.can_move_rows(shapes):
        encode = partial(loaded.tokenizer.encode, add_special_tokens=False)
        return [Advice("tuning.tokens", [n if encode(n) == [t] else t for t, n in zip(silent, names, strict=True)], why)]
    fate = "answers will hardly stop" if silent.keys() & {*ends} else "no answer will hold it"
    prepared.notices.append(Notice("M102", f"{why}, so {fate}; a LoRA beside untouched tables lets its row move", 0, ""))
    return []
