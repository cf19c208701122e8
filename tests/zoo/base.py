"""Historical bugs as mutants: something healthy with one part replaced by the wrong one, and what must notice.

Bugs are of the machinery, put into the subject of a proof. Flaws are of what a user gives: rows, template, files of the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hone.core.registry import Registry
from hone.models.policy import Policy
from hone.prove import Subject
from tests.zoo.given import Given

T = TypeVar("T", Subject, Given)


@dataclass(frozen=True, slots=True)
class Mutant(Generic[T]):
    """What went wrong, who shipped it, what is proved to notice, and something that has it."""

    name: str
    shipped: str
    caught: str
    """A proof, or the code of a check."""
    on: str
    """The healthy thing that it is put into."""
    mutate: Callable[[T], T]

    @property
    def about(self) -> str:
        return " ".join((self.mutate.__doc__ or "").split())


BUGS: Registry[Mutant[Subject]] = Registry("bug")
FLAWS: Registry[Mutant[Given]] = Registry("flaw")


def bug(caught: str, *, on: str = "sft", shipped: str) -> Callable[[Callable[[Subject], Subject]], Callable[[Subject], Subject]]:
    """Register a mutant of a subject under its function's name; a proof catches it."""
    return _into(BUGS, caught, on, shipped)


def flaw(caught: str, *, on: str, shipped: str) -> Callable[[Callable[[Given], Given]], Callable[[Given], Given]]:
    """Register a mutant of what a user gives under its function's name; a check of this code catches it."""
    return _into(FLAWS, caught, on, shipped)


def _into(shelf: Registry[Mutant[T]], caught: str, on: str, shipped: str) -> Callable[[Callable[[T], T]], Callable[[T], T]]:
    def add(mutate: Callable[[T], T]) -> Callable[[T], T]:
        name = mutate.__name__.replace("_", " ")
        shelf.add(name)(Mutant(name, shipped, caught, on, mutate))
        return mutate

    return add


def as_policy(kind: type[Policy], subject: Subject) -> Callable[[], Policy]:
    """Policies of another class around the same model."""

    def make() -> Policy:
        one = subject.policy()
        return kind(one.model, one.tuning, one.packed, one.stock, one.heads, one.teacher)

    return make


def table(shelf: Registry[Mutant[T]]) -> str:
    """One half of the zoo as a table in Markdown, as docs/zoo.md shows it."""
    lines = ["| bug | what went wrong | who shipped it | what catches it |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {one.name} | {one.about} | {one.shipped} | `{one.caught}` |" for _, one in shelf.items())])
