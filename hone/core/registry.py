"""Names to things. Filled once, at import; a wrong name is answered with the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from hone.core.errors import HoneError

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`, as a hint for an error, or the whole list."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"


class Registry(Generic[T]):
    """What can be chosen by name in a run file, of one kind (objective, method, format ...)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}

    def add(self, name: str) -> Callable[[T], T]:
        """Decorator that files a thing under a name."""

        def keep(thing: T) -> T:
            assert name not in self._things, f"{self.kind} '{name}' is registered twice"
            self._things[name] = thing
            return thing

        return keep

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            raise HoneError("C003", f"no {self.kind} is called '{name}'", fix=nearest(name, self._things))
        return self._things[name]

    def __contains__(self, name: str) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)

    def items(self) -> Iterable[tuple[str, T]]:
        return self._things.items()
