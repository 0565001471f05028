"""The members that one channel has in this process. Without locks, time and I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...brokers.base import MemberChange
from ...brokers.event_log import Bounds
from ...streams.stream import Stream

#: So many are told of in one step, but where all have to be.
MOST_AT_ONCE = 500


class Here:
    """The members of one channel in this process. Not thread-safe: the lock of the roster guards it.

    An identity is held from when its first stream here begins until a while after its last one has ended.
    """

    def __init__(self) -> None:
        self.former: list[str] = []  #: holders that this process was before, which may have members of it still
        self._streams: dict[Stream, str | None] = {}  # by whose they are; None where that is unknown
        self._waiting: dict[Stream, None] = {}  # of these, those that have not begun
        self._counts: dict[str, int] = {}  # of those that have, by identity
        self._leaving: dict[str, float] = {}  # identities without a stream, and until when they are held
        self._told: set[str] = set()  # those that the broker has as members
        self._changed: dict[str, None] = {}  # those that it may have to be told of
        self._is_untold = False  # of all
        self.is_quiet = False  #: the broker is to be told in silence of those whom it knew once, first

    def arrive(self, stream: Stream, identity: str | None) -> None:
        """Note a stream, which begins later, or never."""
        self._streams[stream] = identity
        if identity is not None:
            self._waiting[stream] = None

    def depart(self, stream: Stream, until: float) -> str | None:
        """Note that a stream is over. Idempotent.

        :return: the identity that is held until then, as this was its last stream; else None.
        """
        identity = self._streams.pop(stream, None)
        if identity is None:
            return None
        if stream in self._waiting:
            del self._waiting[stream]
            if not _has_begun(stream):
                return None
            self._begin(identity)
        self._counts[identity] -= 1
        if self._counts[identity]:
            return None
        del self._counts[identity]
        self._leaving[identity] = until
        return identity

    def note_begun(self) -> bool:
        """Hold the identities whose streams have begun. Return whether others are still to begin."""
        for stream in [each for each in self._waiting if _has_begun(each)]:
            del self._waiting[stream]
            identity = self._streams[stream]
            assert identity is not None, "others do not wait"
            self._begin(identity)
        return bool(self._waiting)

    def let_go(self, identity: str, now: float) -> None:
        """Hold this identity no longer, if it has no stream, and its time is over."""
        if self._leaving.get(identity, now + 1) <= now:
            del self._leaving[identity]
            self._changed[identity] = None

    def tell_again(self, former: str | None, *, is_quiet: bool) -> None:
        """Have all be told again.

        :param former: the holder that this process was until now, where it is another one from now on.
        :param is_quiet: without an event: the broker has lost what it knew.
        """
        self._is_untold, self.is_quiet = True, is_quiet
        if former is not None:
            self.former.append(former)

    @property
    def has_changed(self) -> bool:
        """Whether the broker has to be told something."""
        return self._is_untold or bool(self._changed) or bool(self.former)

    @property
    def is_needless(self) -> bool:
        """Whether nothing is left that anybody has to know."""
        return not (self._streams or self._counts or self._leaving or self._told or self.has_changed)

    @property
    def has_told(self) -> bool:
        """Whether the broker has any of its members."""
        return bool(self._told)

    @property
    def identities(self) -> Iterator[str]:
        """Iterate over the identities that are held."""
        yield from self._counts
        yield from self._leaving

    def change(self, channel: str, bounds: Bounds) -> MemberChange:
        """Return what the broker is to be told now."""
        if self._is_untold:
            come = [each for each in self.identities if each in self._told or not self.is_quiet]
            return MemberChange(channel, come, (), True, self.is_quiet, bounds)
        changed = list(self._changed)[:MOST_AT_ONCE]
        come = [each for each in changed if self._is_held(each)]
        return MemberChange(channel, come, [each for each in changed if not self._is_held(each)], bounds=bounds)

    def note_told(self, change: MemberChange) -> None:
        """Note that the broker was told this; what has changed meanwhile is to be told as well."""
        if change.is_all:
            self._is_untold = self.is_quiet = False
            gone: Sequence[str] = [*self._told.difference(change.come)]
            self._told = set(change.come)
        else:
            gone = change.gone
            self._told.update(change.come)
            self._told.difference_update(gone)
        for identity in (*change.come, *gone):
            if self._is_held(identity) == (identity in self._told):
                self._changed.pop(identity, None)
            else:
                self._changed[identity] = None

    def _is_held(self, identity: str) -> bool:
        return identity in self._counts or identity in self._leaving

    def _begin(self, identity: str) -> None:
        self._counts[identity] = self._counts.get(identity, 0) + 1
        self._leaving.pop(identity, None)
        if identity not in self._told:
            self._changed[identity] = None


def _has_begun(stream: Stream) -> bool:
    """Return whether a response carries it: a stream that was refused, or never returned, is no visit."""
    return stream.outgoing.writer is not None
