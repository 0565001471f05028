"""A list that many threads change while many others read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Generic, TypeVar, overload

from .parking import guard

T = TypeVar("T")


class CopyOnWriteList(Sequence[T], Generic[T]):
    """A thread-safe list whose readers see one unchanging snapshot.

    What ``CopyOnWriteArrayList`` is in Java: writers take turns behind a lock, readers take none, and no read ever
    raises because another thread changed the list. Unlike there, a change costs O(1): the copy is made when the list
    is next read, and shared by all who read it until the next change.

    Elements keep the order in which they were added, and may be in the list more than once. They are compared with
    ``==``; where they can be hashed, finding one costs O(1).
    """

    __slots__ = ("__weakref__", "_elements", "_guard", "_published", "_tickets", "_turn", "_version")

    def __init__(self, elements: Sequence[T] = ()) -> None:
        self._guard = guard()
        self._turn = count()
        self._elements: dict[int, T] = {}  # ticket -> element, in the order of the tickets
        self._tickets: dict[T, int | list[int]] = {}  # element -> its ticket, or all of them
        self._version = 0  # of _elements; goes up with every change
        self._published: tuple[int, tuple[T, ...]] = (0, ())  # a snapshot, and the version it shows
        for element in elements:
            self.add(element)

    def add(self, element: T) -> None:
        """Append an element. From any thread; never blocks on readers."""
        with self._guard:
            self._append(element)

    def add_if_absent(self, element: T) -> bool:
        """Append an element unless an equal one is there. From any thread.

        :return: whether it was appended.
        """
        with self._guard:
            if element in self:
                return False
            self._append(element)
            return True

    def remove(self, element: T) -> bool:
        """Remove the first element equal to this one. From any thread.

        :return: whether there was one. That another thread was first is no error.
        """
        with self._guard:
            ticket = self._forget(element)
            if ticket is None:
                return False
            del self._elements[ticket]
            self._version += 1
            return True

    def snapshot(self) -> tuple[T, ...]:
        """The elements as they are now, as a tuple that never changes. From any thread, without a lock."""
        shown, elements = self._published
        if shown == self._version:
            return elements
        while True:
            version = self._version
            try:
                elements = tuple(self._elements.values())
            except RuntimeError:  # the dict grew or shrank under the copy
                continue
            if version == self._version:
                self._published = (version, elements)
                return elements

    def _append(self, element: T) -> None:
        ticket = next(self._turn)
        self._note(element, ticket)
        self._elements[ticket] = element
        self._version += 1

    def _note(self, element: T, ticket: int) -> None:
        try:
            first = self._tickets.setdefault(element, ticket)
        except TypeError:  # not hashable: found by comparing
            return
        if isinstance(first, list):
            first.append(ticket)
        elif first != ticket:
            self._tickets[element] = [first, ticket]

    def _forget(self, element: T) -> int | None:
        try:
            found = self._tickets.get(element)
        except TypeError:
            return next((ticket for ticket, other in self._elements.items() if other == element), None)
        if isinstance(found, list):
            ticket = found.pop(0)
            if len(found) == 1:
                self._tickets[element] = found[0]
            return ticket
        if found is not None:
            del self._tickets[element]
        return found

    def __len__(self) -> int:
        return len(self._elements)

    def __contains__(self, element: object) -> bool:
        try:
            return element in self._tickets
        except TypeError:
            return element in self.snapshot()

    def __iter__(self) -> Iterator[T]:
        return iter(self.snapshot())

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.snapshot()[index]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.snapshot())!r})"
