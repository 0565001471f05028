"""Where in the logs of its channels a client begins, and whether it has a gap."""

from __future__ import annotations

import pytest

from flask_sse_emitters.brokers.event_ids import Position
from flask_sse_emitters.brokers.event_log import Bounds, Log
from flask_sse_emitters.channels.replay.locating import (
    UNKNOWN,
    Arrival,
    KnownChannel,
    Location,
    locate_new,
    locate_returning,
)
from flask_sse_emitters.channels.replay.since import FIRST
from flask_sse_emitters.wire.frame import CHANNEL_END
from tests.support.brokers.broker_calls import frame


def log_of(events: int, kept: int = 1000) -> Log:
    """Return a log of these many events, one a second, of which the first was published at 1001."""
    log = Log("e", 0, lambda: 0.0)
    with log.guard:
        for offset in range(1, events + 1):
            log.keep(frame(offset), Bounds(kept, 0), 1000.0 + offset)
    return log


def test_reconnect_starts_at_list_position_if_log_has_dropped_it() -> None:
    """The log is ahead of the list, which is about to deliver events that the log has dropped already."""
    channel = KnownChannel(log_of(10, kept=2), newest=5, start=0)
    assert locate_returning([Position("e", 5)], [channel]) == Location([5], has_gap=False)
    assert locate_returning([Position("e", 4)], [channel]) == Location([5], has_gap=True)


NEW_CLIENTS = {
    "when it connected": (1003.5, 1000, 5, Location([3], has_gap=False)),
    "within the error of clocks": (1004.001, 1000, 5, Location([3], has_gap=False)),
    "as the process subscribed": (1009.0, 1000, 5, Location([5], has_gap=False)),
    "dropped since": (1003.5, 1, 5, Location([4], has_gap=True)),
}


@pytest.mark.parametrize(("connected_at", "kept", "start", "location"), NEW_CLIENTS.values(), ids=NEW_CLIENTS)
def test_new_client_of_unknown_channel_misses_no_event_after_connect(
    connected_at: float, kept: int, start: int, location: Location
) -> None:
    channel = KnownChannel(log_of(5, kept), newest=5, start=start)
    assert locate_new(connected_at, [UNKNOWN], [channel], [Arrival()]) == location


def ended(log: Log) -> Log:
    with log.guard:
        log.append(CHANNEL_END, Bounds(1000, 0))
    return log


def test_new_client_since_first_begins_with_the_epoch_in_which_it_came() -> None:
    """Its position is found only after the channel has ended, and begun anew."""
    log = log_of(3)
    arrival = Arrival(FIRST, Position("e", 2), oldest=1)
    with ended(log).guard:
        log.append(frame("new"), Bounds(1000, 0))
    channel = KnownChannel(log, newest=5, start=5)
    assert locate_new(1002.5, [UNKNOWN], [channel], [arrival]) == Location([0], has_gap=False)
    assert locate_new(1002.5, [UNKNOWN], [channel], [Arrival(FIRST)]) == Location([4], has_gap=False)


def test_client_with_an_unknown_id_begins_after_an_earlier_end() -> None:
    log = ended(log_of(3))
    channel = KnownChannel(log, newest=4, start=0)
    assert locate_returning([Position("x", 1)], [channel]) == Location([0], has_gap=True)
    with log.guard:
        log.append(frame("new"), Bounds(1000, 0))
    channel = KnownChannel(log, newest=5, start=0)
    assert locate_returning([Position("x", 1)], [channel]) == Location([4], has_gap=True)
    assert locate_returning([Position("e", 1)], [channel]) == Location([1], has_gap=False)
