"""No setting of an objective is dead: over the whole registry, each one changes what is asked, what is lost or what is told of it, or is
refused with what it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin

import pytest
import torch

from hone.core.errors import HoneError
from hone.core.types import StepStat
from hone.data.batching import pack
from hone.objectives import OBJECTIVES, Objective
from hone.tuning.lora import Lora
from tests import nets

SPECIAL: dict[str, Any] = {"weights": {"ipo": 1.0}, "classes": ("a", "b", "c"), "top_k": 3}


def changes() -> Iterator[tuple[str, str, Any]]:
    """Every setting of every objective with every other choice, or with another number."""
    for name, objective in OBJECTIVES.items():
        for field in dataclasses.fields(objective.settings()):
            value = objective.full[field.name]
            if get_origin(field.type) is Literal:
                yield from ((name, field.name, other) for other in get_args(field.type) if other != value)
            elif isinstance(value, bool):
                yield name, field.name, not value
            else:
                yield name, field.name, SPECIAL.get(field.name, 0.3 if value != 0.3 else 0.2)


def beside(objective: Objective, setting: str) -> dict[str, Any]:
    """What a setting does nothing without."""
    key, equals, value = objective.only.get(setting, "").partition("=")
    return {key: value if equals else 0.1} if key else {}


def told(objective: Objective) -> list[Any]:
    """What an objective asks, what it makes of the answers, and what it tells; of written ones, for moves this way and the other."""
    policy = nets.asked(nets.policy(nets.llama, Lora(rank=2)), objective)
    with torch.no_grad():
        signals = policy.signals(pack(nets.for_objective(objective)), objective.needs)
    found: list[Any] = [repr(objective.needs)]
    for way in (-0.7, 0.7) if "old_logp" in signals.facts else (0.0,):
        if way:
            moved_N = torch.randn(signals.logp.shape, generator=torch.Generator().manual_seed(1))
            signals.logp_N = signals.facts["old_logp"].float() + way * moved_N
        here = slice(0, 0) if objective.aside is not None else slice(None)
        signals.step = {name: StepStat(values.double(), here) for name, values in objective.statistics(signals).items()}
        loss = objective(signals)
        found += [float(loss.total), {name: float(value) for name, value in loss.metrics.items()}]
    return found


@cache
def told_plainly(name: str, *needed: tuple[str, Any]) -> list[Any]:
    """The same as it is, with no more than a setting needs."""
    return told(OBJECTIVES[name].bind(**dict(needed)))


@pytest.mark.parametrize(("name", "setting", "value"), list(changes()))
def test_a_setting_acts(name: str, setting: str, value: Any) -> None:
    plain = OBJECTIVES[name]
    needed = beside(plain, setting)
    assert told(plain.bind(**needed, **{setting: value})) != told_plainly(name, *needed.items())


@pytest.mark.parametrize(("name", "setting", "value"), [one for one in changes() if one[1] in OBJECTIVES[one[0]].only])
def test_without_what_it_needs_it_is_refused(name: str, setting: str, value: Any) -> None:
    with pytest.raises(HoneError) as caught:
        OBJECTIVES[name].bind(**{setting: value})
    assert caught.value.code == "C071" and setting in caught.value.what and caught.value.fix


def test_what_a_setting_needs_is_a_setting_too() -> None:
    for objective in dict(OBJECTIVES.items()).values():
        assert {name for pair in objective.only.items() for name in (pair[0], pair[1].partition("=")[0])} <= objective.full.keys()
