"""A list that many threads change while many others read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

from ..runtime.locks import native_lock

T = TypeVar("T")


_NOTHING: tuple[int, tuple[Any, ...]] = (-1, ())


class CopyOnWriteList(Sequence[T], Generic[T]):
    """A thread-safe list whose readers see one unchanging snapshot.

    What ``CopyOnWriteArrayList`` is in Java: writers take turns behind a lock, readers take none, and no read ever
    raises because another thread changed the list. Unlike there, a change costs O(1): the copy is made when the list
    is next read, and shared by all who read it until the next change.

    Elements keep the order in which they were added, and are compared with ``==``. One may be in the list more than
    once, or not hashable; removing then costs O(n) until the list is empty again. Their ``==`` and ``hash`` are called
    under the lock, so they must not block.

    :param elements: those in the list from the beginning.
    """

    __slots__ = ("__weakref__", "_elements", "_lock", "_published", "_version")

    def __init__(self, elements: Iterable[T] = ()) -> None:
        self._lock = native_lock()
        self._elements: dict[T, None] | list[T] = {}  # a dict, which keeps their order, for as long as it can be one
        self._version = 0  # of _elements; goes up with every change
        self._published: tuple[int, tuple[T, ...]] = _NOTHING  # a snapshot, and the version it shows
        for element in elements:
            self.add(element)

    def add(self, element: T) -> None:
        """Append an element. From any thread; never blocks on readers."""
        with self._lock:
            self._append(element)

    def add_if_absent(self, element: T) -> bool:
        """Append an element unless an equal one is there. From any thread.

        :return: whether it was appended.
        """
        with self._lock:
            if element in self:
                return False
            self._append(element)
            return True

    def remove(self, element: T) -> bool:
        """Remove the first element equal to this one. From any thread.

        :return: whether there was one. That another thread was first is no error.
        """
        with self._lock:
            elements = self._elements
            if isinstance(elements, dict) and _is_hashable(element):
                if element not in elements:
                    return False
                del elements[element]
            else:
                elements = self._listed()
                if element not in elements:
                    return False
                elements.remove(element)
                self._elements = elements or {}
            self._version += 1
            self._published = _NOTHING  # it holds what has been removed
            return True

    def snapshot(self) -> tuple[T, ...]:
        """Return the elements as they are now, as a tuple that never changes. From any thread, without a lock."""
        shown, elements = self._published
        if shown == self._version:
            return elements
        while True:
            version = self._version
            try:
                elements = tuple(self._elements)
            except RuntimeError:  # the dict grew or shrank under the copy
                continue
            if version == self._version:
                self._published = (version, elements)
                return elements

    def _append(self, element: T) -> None:
        if isinstance(self._elements, dict) and _is_hashable(element) and element not in self._elements:
            self._elements[element] = None
        else:
            self._listed().append(element)
        self._version += 1

    def _listed(self) -> list[T]:
        if isinstance(self._elements, dict):
            self._elements = list(self._elements)
        return self._elements

    def __len__(self) -> int:
        return len(self._elements)

    def __contains__(self, element: object) -> bool:
        elements = self._elements
        if isinstance(elements, dict) and _is_hashable(element):
            return element in elements
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


def _is_hashable(element: object) -> bool:
    try:
        hash(element)
    except TypeError:
        return False
    return True
