"""What a process knows of channels in Redis, to notice where Redis has lost events.

Redis may come back without its newest events: from an old file, or as another server that lacked them. The scripts of
:mod:`.redis_wire` are told what is known here, so that they do not give the id of a lost event to another one.
"""

from __future__ import annotations

from typing import NamedTuple

from ...runtime.locks import native_lock

#: So many channels are remembered, those that were noted last.
REMEMBERED = 10_000


class Known(NamedTuple):
    """The newest event of a channel that a process knows of."""

    epoch: str
    offset: int
    ms: int  #: when it was published, by the clock of Redis; 0 where that is not known
    is_sure: bool  #: Redis has answered so; else it was only announced, which others can do as well


#: No event is known.
NOTHING = Known("", 0, 0, is_sure=False)


def newer(one: Known, other: Known) -> Known:
    """Give the one of two events of a channel that came later; where their epochs differ, their times decide."""
    if one.epoch == other.epoch:
        return max(one, other, key=lambda known: (known.offset, known.is_sure))
    return one if one.ms >= other.ms else other


class KnownEvents:
    """Remembers the newest event of each channel, of a bounded number of channels. Any thread may call; none waits."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._known: dict[str, Known] = {}  # by when they were noted

    def get(self, channel: str) -> Known:
        return self._known.get(channel, NOTHING)

    def note(self, channel: str, known: Known) -> None:
        with self._lock:
            self._known[channel] = newer(known, self._known.pop(channel, NOTHING))
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]
