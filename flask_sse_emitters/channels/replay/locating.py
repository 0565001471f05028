"""Finding the position of a client in the logs of its channels. Pure: it waits for nothing, and asks no broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...brokers.event_ids import Position
from ...brokers.event_log import Log
from .since import FIRST, NOW, Since

#: Stands for an offset that is not known yet.
UNKNOWN = -1

#: The times of events that come from another machine's clock may be wrong by this much.
CLOCK_ERROR_SECONDS = 0.002


class KnownChannel(NamedTuple):
    """What a process knows of a channel at one moment."""

    log: Log
    newest: int  #: the offset of the newest event that the channel's list has been given
    start: int  #: the offset of the newest event as the process subscribed


class Arrival(NamedTuple):
    """How a client without an id comes to a channel."""

    since: Since = NOW  #: where it begins
    newest: Position | None = None  #: the newest event as it came; None where that is not known
    oldest: int = 0  #: the offset of the oldest that it could have had then, where that is known
    has_end: bool = False  #: the channel is complete, or will be: a run publishes to it
    is_default: bool = False  #: no beginning was asked for, so it is the first event in a run


class Location(NamedTuple):
    """Where a client begins to read."""

    offsets: list[int]  #: by channel: it reads what comes after
    has_gap: bool  #: it has missed something before these, for good


def find_foreign(positions: Sequence[Position | None], channels: Sequence[KnownChannel]) -> list[int]:
    """Return the indexes of the channels in which the log does not know the client's position, where it has one.

    The client may know more than this process does, as it comes from another one.
    """
    return [
        index
        for index, (channel, position) in enumerate(zip(channels, positions, strict=True))
        if position is not None and channel.log.find(position) is None
    ]


def locate_returning(positions: Sequence[Position] | None, channels: Sequence[KnownChannel]) -> Location:
    """Find where a client begins that comes back: after the events that it has, if all that followed is kept.

    :param positions: in its channels; None where it sent what is no id.
    """
    offsets, has_gap = [], False
    for index, channel in enumerate(channels):
        offset = None if positions is None else channel.log.find(positions[index])
        misses_end = offset is not None and channel.log.is_before_end(offset)  # which it gets, though it is not kept
        earliest = channel.log.first if offset is None else channel.log.oldest
        earliest = min(earliest - 1, channel.newest)  # what comes after the newest, the list brings
        if offset is None or (offset < earliest and not misses_end):
            offset, has_gap = earliest, True
        offsets.append(offset)
    return Location(offsets, has_gap)


def locate_new(
    came_at: float, newest: Sequence[int], channels: Sequence[KnownChannel], arrivals: Sequence[Arrival]
) -> Location:
    """Find where a client begins that comes without an id: it gets all that is published after it came.

    Only who begins with that may miss some of it for good. Who wants events from before begins with the oldest.

    :param came_at: when it came, by the clock of the logs.
    :param newest: the offset of the newest event in each channel as it came, or :data:`UNKNOWN`.
    """
    offsets, has_gap = [], False
    for offset, channel, arrival in zip(newest, channels, arrivals, strict=True):
        log, since, first = channel.log, arrival.since, channel.log.first
        found = None if arrival.newest is None else log.find(arrival.newest)
        if found is not None:
            offset = max(offset, found)
            first = max(arrival.oldest, log.oldest)  # meanwhile the channel may have ended, and begun anew
        elif offset == UNKNOWN:
            before, is_known = log.before(came_at - CLOCK_ERROR_SECONDS)
            offset = min(before, channel.start)
            since = FIRST if log.is_complete or (log.has_run and arrival.is_default) else since
            has_gap = has_gap or (since == NOW and not is_known)
        begins = min(offset - since.events, log.before(came_at - since.seconds)[0] if since.seconds else offset)
        offsets.append(min(offset, max(begins, first - 1)))
    return Location(offsets, has_gap)
