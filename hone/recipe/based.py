"""Before anything is loaded: what an earlier start of a run chose, the method and the base's bits, and what contradicts them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.models.dtype import choose_device
from hone.recipe.quantised import automatic, check_base, kept_plain, small_files
from hone.recipe.settings import resolve
from hone.recipe.written import readable
from hone.train.optim import check_optimiser
from hone.tuning.base import name_of

MACHINE = {"hardware": ("dtype", "token_budget", "recompute"), "model": ("quantise", "double_quant")}
"""Settings that are chosen by the machine's state where they are left open."""


def based(raw: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The method and the base's bits, chosen where they were left open, with the reasons.

    Raises C100, M020, M088 or M099 where they cannot be, from the settings and the model's small files alone.
    """
    asked = resolve(raw)
    small = small_files(asked.model)
    device = choose_device(asked.hardware.device)
    check_optimiser(asked.optim.name, device)
    check_base(name_of(asked.tuning), asked.tuning.about.artifact == "model", small)
    return kept_plain(*automatic(raw, device.type), small)


def remembered(raw: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """What an earlier start of this run chose by the machine, which may be another today: type, bits and micro-batches."""
    before = readable(folder)
    if before is None:
        return raw
    kept = {section: {key: before[section][key] for key in keys if key in before.get(section, {})} for section, keys in MACHINE.items()}
    return dict(raw) | {section: values | dict(raw.get(section, {})) for section, values in kept.items()}
