"""The rules of catching up: which events are next, and which show that some are missing. Pure: no I/O, no state."""

from __future__ import annotations

from enum import Enum, auto

from ...listening.lookup import Announcement


class Order(Enum):
    """Where an announced event belongs."""

    NEXT = auto()  #: right after the newest one here
    SEEN = auto()  #: it is here already
    UNCLEAR = auto()  #: some are missing, or Redis has lost some: the channel must be looked up


def order_of(event: Announcement, epoch: str, newest: int, newest_ms: int) -> Order:
    """Return where an announced event belongs.

    :param epoch: of the channel's log here.
    :param newest: the offset of the newest event here.
    :param newest_ms: when that was published, by the clock of Redis.
    """
    if event.epoch != epoch or event.offset > newest + 1:
        return Order.UNCLEAR
    if event.offset == newest + 1:
        return Order.NEXT
    is_other = event.offset == newest and event.at_ms != newest_ms  # with the offset of the one here
    return Order.UNCLEAR if is_other or event.at_ms > newest_ms else Order.SEEN
