"""A list of groups that makes each of them when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from hone.core.types import Group


class LazyGroups(Sequence[Group]):
    """Reads like a list, slices and negative places included; a kind of it says how long it is and makes the group at a place."""

    @abstractmethod
    def at(self, index: int) -> Group:
        """The group at a place from 0 on."""

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> list[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | list[Group]:
        places = range(len(self))[index]
        return self.at(places) if isinstance(places, int) else [self.at(place) for place in places]
