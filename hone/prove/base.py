"""What a proof is: a named function of a subject that measures one number and knows how large it may be."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from hone.core.errors import catalogue
from hone.core.registry import Registry
from hone.prove.subject import Subject


class Found(NamedTuple):
    """What a proof has measured, and where the worst of it is."""

    number: float
    where: str = ""


class Mute(NamedTuple):
    """Why a proof has nothing to say about this run."""

    reason: str


Measure = Callable[[Subject], Found | Mute]


@dataclass(frozen=True, slots=True)
class Proof:
    """A claim about a run. It holds where the number that is measured is at most `bound`."""

    name: str
    code: str
    """Its entry in `hone explain`: what is wrong where it fails, and what to do."""
    measure: Measure
    bound: float
    unit: str

    @property
    def says(self) -> str:
        """The claim, in one sentence."""
        return " ".join((self.measure.__doc__ or "").partition("\n\n")[0].split())

    def of(self, subject: Subject) -> Result:
        """Carry it out. What breaks off while it is carried out has not been proved."""
        started = time.perf_counter()
        try:
            found = self.measure(subject)
        except Exception as error:
            found = Found(math.inf, f"it broke off: {type(error).__name__}: {error}".partition("\n")[0])
        seconds = round(time.perf_counter() - started, 2)
        if isinstance(found, Mute):
            return Result(self.name, self.code, self.says, None, self.bound, self.unit, found.reason, seconds)
        return Result(self.name, self.code, self.says, float(found.number), self.bound, self.unit, found.where, seconds)


@dataclass(frozen=True, slots=True)
class Result:
    """How a proof went. `measured` is None where it does not apply, and `where` then says why not."""

    name: str
    code: str
    says: str
    measured: float | None
    bound: float
    unit: str
    where: str
    seconds: float

    @property
    def holds(self) -> bool:
        """False for what is no number, too."""
        return self.measured is None or self.measured <= self.bound

    @property
    def cause(self) -> str:
        """What most often is wrong where this fails."""
        return " ".join(catalogue()[self.code].why.split())

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity: a proof that broke off has no number."""
        measured = self.measured if self.measured is None or math.isfinite(self.measured) else None
        return asdict(self) | {"measured": measured, "holds": self.holds}


PROOFS: Registry[Proof] = Registry("proof")


def proof(code: str, *, bound: float, unit: str = "") -> Callable[[Measure], Measure]:
    """Register a measurement under its own name; the first paragraph of its docstring is the claim."""

    def add(measure: Measure) -> Measure:
        name = measure.__name__.replace("_", "-")
        PROOFS.add(name)(Proof(name, code, measure, bound, unit))
        return measure

    return add


def prove(subject: Subject, names: Iterable[str] | None = None, *, tell: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Carry out the proofs of these names, all by default. The generator of random numbers is left as it was."""
    results = []
    for name in sorted(PROOFS, key=lambda each: PROOFS[each].code) if names is None else names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            results.append(PROOFS[name].of(subject))
        tell(results[-1])
    return results


def worst(numbers: Mapping[str, float]) -> Found:
    """The largest of several numbers, and whose it is; what is no number is worst of all."""
    name = max(numbers, key=lambda key: math.inf if math.isnan(numbers[key]) else numbers[key])
    return Found(numbers[name], name)
