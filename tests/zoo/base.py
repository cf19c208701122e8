"""Historical bugs as mutants: a healthy subject with one part replaced by the wrong one, and the proof that must notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hone.core.registry import Registry
from hone.models.policy import Policy
from hone.prove import Subject

Mutate = Callable[[Subject], Subject]


@dataclass(frozen=True, slots=True)
class Bug:
    """What went wrong, who shipped it, what is proved to notice, and a subject that has it."""

    name: str
    shipped: str
    caught: str
    """A proof, or the code of a data check."""
    on: str
    """The healthy subject that it is put into."""
    mutate: Mutate

    @property
    def about(self) -> str:
        return " ".join((self.mutate.__doc__ or "").split())


BUGS: Registry[Bug] = Registry("bug")


def bug(caught: str, *, on: str = "sft", shipped: str) -> Callable[[Mutate], Mutate]:
    """Register a mutant under its function's name."""

    def add(mutate: Mutate) -> Mutate:
        name = mutate.__name__.replace("_", " ")
        BUGS.add(name)(Bug(name, shipped, caught, on, mutate))
        return mutate

    return add


def as_policy(kind: type[Policy], subject: Subject) -> Callable[[], Policy]:
    """Policies of another class around the same model."""

    def make() -> Policy:
        one = subject.policy()
        return kind(one.model, one.tuning, one.packed, one.stock, one.heads, one.teacher)

    return make


def table() -> str:
    """The zoo as a table in Markdown, as docs/zoo.md shows it."""
    lines = ["| bug | what went wrong | who shipped it | what catches it |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {one.name} | {one.about} | {one.shipped} | `{one.caught}` |" for _, one in BUGS.items())])
