"""What is to be done when: in groups, so that thousands of things cost one timer."""

from __future__ import annotations

import math
import sys
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

#: What is due within so many seconds is one group, and is done at their end.
GROUP_SECONDS = 2.0

#: The group of what is in none: later than all.
NO_GROUP = sys.maxsize


class Item(Protocol):
    """Something that is in one group at most, but for groups that it was in before."""

    group: int


T = TypeVar("T", bound=Item)


class Agenda(Generic[T]):
    """Items, by when they are due. Not thread-safe: a lock of the owner guards it."""

    def __init__(self) -> None:
        self._groups: dict[int, list[T]] = {}
        self._order: list[int] = []  # of the groups, as a heap

    def add(self, item: T, when: float) -> None:
        """Have the item come up at this time at the latest, as it may already do."""
        group = group_at(when)
        if group >= item.group:
            return
        item.group = group
        new: list[T] = []
        items = self._groups.setdefault(group, new)  # the garbage collector may have added one before this
        if items is new:
            heappush(self._order, group)
        items.append(item)

    @property
    def due(self) -> float:
        """When the first items come up."""
        return self._order[0] * GROUP_SECONDS if self._order else math.inf

    def take_due(self, now: float) -> list[T]:
        """Take out the items that are due now. Some may come up too early."""
        items: list[T] = []
        while self.due <= now:
            items += self._groups.pop(heappop(self._order))
        for item in items:
            item.group = NO_GROUP
        return items


def group_at(when: float) -> int:
    """Return the group of what is due at this time; infinity is none."""
    return NO_GROUP if when == math.inf else math.ceil(when / GROUP_SECONDS)
