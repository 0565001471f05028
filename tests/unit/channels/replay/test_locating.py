"""Where in the logs of its channels a client begins, and whether it has a gap."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_sse_emitters.brokers.event_ids import Position
from flask_sse_emitters.brokers.event_log import Log
from flask_sse_emitters.channels.replay.locating import (
    UNKNOWN,
    KnownChannel,
    Location,
    find_foreign,
    locate_new,
    locate_returning,
)


def known(log: Log, newest: int | None = None, start: int = 0) -> KnownChannel:
    return KnownChannel(log, log.newest if newest is None else newest, start)


def test_reconnect_continues_after_last_event(make_log: Callable[..., Log]) -> None:
    channels = [known(make_log(5)), known(make_log(3, epoch="f"))]
    assert locate_returning([Position("e", 2), Position("f", 3)], channels) == Location([2, 3], has_gap=False)


@pytest.mark.parametrize(
    ("position", "kept", "location"),
    [
        (Position("e", 7), 3, Location([7], has_gap=False)),
        (Position("e", 6), 3, Location([7], has_gap=True)),
        (Position("e", 10), 0, Location([10], has_gap=False)),
        (Position("e", 9), 0, Location([10], has_gap=True)),
        (Position("e", 11), 3, Location([7], has_gap=True)),
        (Position("f", 8), 3, Location([7], has_gap=True)),
        (None, 3, Location([7], has_gap=True)),
    ],
    ids=["just kept", "just gone", "newest", "nothing kept", "of the future", "of another epoch", "no id"],
)
def test_reconnect_has_a_gap_if_its_next_event_is_dropped(
    position: Position | None, kept: int, location: Location, make_log: Callable[..., Log]
) -> None:
    positions = None if position is None else [position]
    assert locate_returning(positions, [known(make_log(10, kept))]) == location


def test_reconnect_starts_at_list_position_if_log_has_dropped_it(
    make_log: Callable[..., Log],
) -> None:
    """The log is ahead of the list, which is about to deliver events that the log has dropped already."""
    channel = known(make_log(10, kept=2), newest=5)
    assert locate_returning([Position("e", 5)], [channel]) == Location([5], has_gap=False)
    assert locate_returning([Position("e", 4)], [channel]) == Location([5], has_gap=True)


def test_new_client_begins_with_next_event(make_log: Callable[..., Log]) -> None:
    assert locate_new(0.0, [4], [known(make_log(5))]) == Location([4], has_gap=False)


@pytest.mark.parametrize(
    ("connected_at", "kept", "start", "location"),
    [
        (1003.5, 1000, 5, Location([3], has_gap=False)),
        (1004.001, 1000, 5, Location([3], has_gap=False)),
        (1009.0, 1000, 5, Location([5], has_gap=False)),
        (1003.5, 1, 5, Location([4], has_gap=True)),
    ],
    ids=["when it connected", "within the error of clocks", "as the process subscribed", "dropped since"],
)
def test_new_client_of_unknown_channel_misses_no_event_after_connect(
    connected_at: float, kept: int, start: int, location: Location, make_log: Callable[..., Log]
) -> None:
    """The first event was published at 1001 by the clock, the last one at 1005."""
    assert locate_new(connected_at, [UNKNOWN], [known(make_log(5, kept), start=start)]) == location


def test_foreign_positions_are_in_no_log(make_log: Callable[..., Log]) -> None:
    channels = [known(make_log(5, epoch=epoch)) for epoch in "abc"]
    assert find_foreign([Position("a", 6), Position("b", 5), Position("x", 1)], channels) == [0, 2]


# Ids.
