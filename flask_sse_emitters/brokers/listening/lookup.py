"""What is known of a channel at the server: its newest event, its state, and the events that come next there.

Times are those of the server's clock, in milliseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from ...wire.frame import Frame
from ..event_ids import Position
from ..event_log import Bounds, Log


class KnownEvent(NamedTuple):
    """The newest event of a channel that a process knows of: it shows where the server has lost some."""

    epoch: str
    offset: int
    at_ms: int  #: when it was published, by the server's clock; 0 where that is not known
    is_sure: bool  #: the server has returned it; else it was only announced, which other programs can do as well


#: No event is known.
UNKNOWN = KnownEvent("", 0, 0, is_sure=False)


class Announcement(NamedTuple):
    """One event, as it is announced or kept."""

    epoch: str
    offset: int
    at_ms: int  #: when it was published, by the server's clock
    bounds: Bounds
    frame: Frame  #: without an id


class Lookup(NamedTuple):
    """The state of a channel at the server, and the events that come next there."""

    epoch: str
    newest: int
    newest_ms: int  #: when that was published, by the server's clock; 0 where nothing was
    now_ms: int  #: the time of this answer, by the same
    events: list[Announcement]  #: not all of them where they end before the newest
    former: list[Position]  #: where epochs before this one ended, the latest first
    first: int = 0  #: as :attr:`.Log.first`, as far as it depends on ends; 0 where there was none
    is_complete: bool = False  #: as :attr:`.Log.is_complete`
    run_until_ms: int = 0  #: until when a run has the channel, by the same clock; 0 where none has

    @property
    def first_offset(self) -> int:
        """The offset of the first event in it; where there is none, that of the channel's next event."""
        return self.events[0].offset if self.events else self.newest + 1


def newer(one: KnownEvent, other: KnownEvent) -> KnownEvent:
    """Return the later of two events of a channel; where their epochs differ, their times decide."""
    if one.epoch == other.epoch:
        return other if (other.offset, other.is_sure) > (one.offset, one.is_sure) else one
    return one if one.epoch and one.at_ms >= other.at_ms else other


def continues(log: Log, lookup: Lookup) -> bool:
    """Return whether the events of a lookup begin where this log ends, in its epoch or in one that followed it."""
    is_same = lookup.epoch == log.epoch or any(epoch == log.epoch and log.newest <= end for epoch, end in lookup.former)
    return is_same and lookup.first_offset == log.newest + 1
