"""Run as a program: says, as JSON, what importing and using hone has changed inside torch, transformers and peft."""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

from tests.house.source import ROOT, python_files

LIBRARIES = ("torch", "transformers", "peft")
NOT_OURS = ("_abc_impl", "__abstractmethods__", "__annotations__", "__doc__")
"""Filled in by Python itself when a class is looked at."""


def snapshot() -> dict[str, dict[str, Any]]:
    """What each module and each class of the libraries holds, by its full name. References are kept, so identities stay unique."""
    held: dict[str, dict[str, Any]] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in LIBRARIES and isinstance(module, ModuleType):
            held[name] = dict(vars(module))
            held |= {f"{name}:{each.__qualname__}": dict(vars(each)) for each in vars(module).values() if _defined_in(each, name)}
    return held


def _defined_in(thing: Any, module: str) -> bool:
    return isinstance(thing, type) and thing.__module__ == module


def changes(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """Attributes that are others now or are gone, and new ones that are ours.

    In a module only functions and classes count, for libraries keep counters and caches there.
    """
    found = []
    for holder, old in before.items():
        new = after.get(holder, {})
        for key in old.keys() | new.keys():
            was, now = old.get(key), new.get(key)
            if was is now or key in NOT_OURS:
                continue
            replaced = key in old and (":" in holder or isinstance(was, FunctionType | type))
            if replaced or _is_ours(now):
                found.append(f"{holder} {key}: {was!r} -> {now!r}"[:300])
    return sorted(found)


def _is_ours(thing: Any) -> bool:
    return isinstance(thing, FunctionType | type) and thing.__module__.partition(".")[0] in ("hone", "tests")


def use() -> None:
    """All of hone imported, and one step trained with everything that speeds it up."""
    for file in python_files("hone"):
        if file.stem != "__main__":
            import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    from hone.data.batching import micro_batches
    from hone.objectives import OBJECTIVES
    from hone.train.engine import Engine
    from hone.train.settings import OptimSettings
    from hone.tuning.lora import Lora
    from tests import nets

    engine = Engine(nets.policy(nets.qwen3, Lora()), OptimSettings())
    tally = engine.forward_backward(micro_batches(nets.singles(), 200), OBJECTIVES["sft"])
    engine.step(1e-4, engine.gradient_norm(tally))


def main() -> None:
    warnings.simplefilter("ignore")
    for name in (*LIBRARIES, "transformers.generation", "transformers.models.qwen3.modeling_qwen3"):
        import_module(name)
    before = snapshot()
    use()
    print(json.dumps({"compared": sum(map(len, before.values())), "changed": changes(before, snapshot())}))


if __name__ == "__main__":
    main()
