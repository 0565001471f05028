"""Lists with a name, by which another process finds its own list of the same purpose.

A list in memory means nothing to another process: only its name says into which list there a stream belongs. A name
stands for one list of this process for as long as anything holds that: a variable, or an emitter in it. So a module may
make its list before there is an app, code that runs again gets the list that it had, and a list that a view makes for
one room costs nothing once the room is empty.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from ..runtime.fork import reset_after_fork
from ..runtime.locks import native_lock
from ..streams.stream import Stream
from .delivery import Delivery

#: A name has so many characters at most: it travels with each stream.
MAX_NAME_LENGTH = 200


class NamedDelivery(Delivery):
    """The list of this process that has this name.

    :ivar own_name: not :attr:`name`, which is that of a channel.
    """

    __slots__ = ("own_name",)

    def __init__(self, own_name: str) -> None:
        super().__init__()
        self.own_name = own_name


class _Lists:
    """The named lists of this process. Any thread may call."""

    def __init__(self) -> None:
        self._by_name: WeakValueDictionary[str, NamedDelivery] = WeakValueDictionary()
        self._reset()
        reset_after_fork(self._reset)

    def _reset(self) -> None:
        self._lock = native_lock()

    def find(self, name: str) -> NamedDelivery | None:
        return self._by_name.get(name)

    def find_or_make(self, name: str) -> NamedDelivery:
        found = self._by_name.get(name)
        if found is None:
            new = NamedDelivery(name)
            with self._lock:
                found = self._by_name.setdefault(name, new)
        return found


_lists = _Lists()


def named_list(name: object) -> NamedDelivery:
    """Return the list of this name in this process, made where there is none.

    :raises TypeError: where the name is not a str.
    :raises ValueError: where it cannot be one.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a list is a str, not {name!r}: emitters are put in it with add()")
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise ValueError(f"the name of a list has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}")
    return _lists.find_or_make(name)


def find_list(name: str) -> NamedDelivery | None:
    """Return the list of this name in this process; None where there is none."""
    return _lists.find(name)


def list_names(stream: Stream) -> tuple[str, ...] | None:
    """Return the names of the lists that a stream is in, besides those of its channels.

    :return: None where one of them has no name, so that no other process knows it.
    """
    lists = [member.list for member in stream.outgoing.members if not member.list.awaits_broker]
    names = [each.own_name for each in lists if isinstance(each, NamedDelivery)]
    return tuple(names) if len(names) == len(lists) else None
