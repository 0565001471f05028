"""The parts of replay, each alone: finding a position in logs, reading logs, and the ids that clients get."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.brokers.event_ids import Position
from flask_sse_emitters.brokers.event_log import Bounds, Log
from flask_sse_emitters.channels.replay.cursor import Cursor
from flask_sse_emitters.channels.replay.gap import encode_gap
from flask_sse_emitters.channels.replay.locating import (
    UNKNOWN,
    KnownChannel,
    Location,
    find_foreign,
    locate_new,
    locate_returning,
)
from flask_sse_emitters.channels.replay.pages import PageCache
from flask_sse_emitters.channels.replay.reading import LogReader
from flask_sse_emitters.streams.interfaces import Output
from flask_sse_emitters.testing import decode
from flask_sse_emitters.wire.frame import BATCH_BYTES, Frame
from tests.unit.doubles.clock import ManualScheduler


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_log(clock: Clock) -> Callable[..., Log]:
    """Make logs of ``events`` events, one a second; the text of each is its offset."""

    def make(events: int, kept: int = 1000, epoch: str = "e", size: int = 0) -> Log:
        log = Log(epoch, 0, clock)
        for offset in range(1, events + 1):
            clock.now += 1
            publish(log, f"{offset:0{size}}", kept)
        return log

    return make


def publish(log: Log, text: str, kept: int = 1000) -> None:
    with log.guard:
        log.append(Frame(f"data: {text}\n\n".encode(), "message"), Bounds(kept, 0))


def known(log: Log, newest: int | None = None, start: int = 0) -> KnownChannel:
    return KnownChannel(log, log.newest if newest is None else newest, start)


# Positions.


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
        (103.5, 1000, 5, Location([3], has_gap=False)),
        (104.001, 1000, 5, Location([3], has_gap=False)),
        (109.0, 1000, 5, Location([5], has_gap=False)),
        (103.5, 1, 5, Location([4], has_gap=True)),
    ],
    ids=["when it connected", "within the error of clocks", "as the process subscribed", "dropped since"],
)
def test_new_client_of_unknown_channel_misses_no_event_after_connect(
    connected_at: float, kept: int, start: int, location: Location, make_log: Callable[..., Log]
) -> None:
    """The first event was published at 101 by the clock, the last one at 105."""
    assert locate_new(connected_at, [UNKNOWN], [known(make_log(5, kept), start=start)]) == location


def test_foreign_positions_are_in_no_log(make_log: Callable[..., Log]) -> None:
    channels = [known(make_log(5, epoch=epoch)) for epoch in "abc"]
    assert find_foreign([Position("a", 6), Position("b", 5), Position("x", 1)], channels) == [0, 2]


# Reading.


def reader_of(
    logs: Sequence[Log], offsets: list[int], lost: str | None = None, pages: PageCache | None = None
) -> LogReader:
    return LogReader(logs, offsets, lost, Cursor(len(logs)), PageCache(ManualScheduler()) if pages is None else pages)


def read(reader: LogReader, *, is_alone: bool = True) -> Output:
    upto = tuple(log.newest for log in reader.logs)
    found = reader.read(reader.behind(range(len(upto)), upto), upto, is_alone=is_alone)
    return found if isinstance(found, Output) else found()


def read_all(reader: LogReader, *, is_alone: bool = True) -> list[Event]:
    events: list[Event] = []
    while reader.behind(range(len(reader.logs)), [log.newest for log in reader.logs]):
        events += decode(read(reader, is_alone=is_alone).payload)
    return events


def test_channels_are_read_in_publish_order(clock: Clock) -> None:
    logs = [Log("a", 0, clock), Log("b", 0, clock)]
    for number, index in enumerate([0, 1, 1, 0, 1]):
        clock.now += 1
        publish(logs[index], str(number))
    events = read_all(reader_of(logs, [0, 0]))
    assert [event.data for event in events] == [*"01234"]
    assert [event.id for event in events] == ["a-1,b-0", "a-1,b-1", "a-1,b-2", "a-2,b-2", "a-2,b-3"]


def test_page_holds_as_many_events_as_fit(make_log: Callable[..., Log]) -> None:
    log = make_log(100, size=BATCH_BYTES // 10)
    reader = reader_of([log], [0])
    page = read(reader)
    assert (page.events, page.is_replay, page.gap) == (9, True, None)
    assert BATCH_BYTES * 0.8 < len(page.payload) <= BATCH_BYTES
    assert [event.id for event in decode(page.payload) + read_all(reader)] == [
        f"e-{number}" for number in range(1, 101)
    ]


def test_event_larger_than_a_page_is_a_page_alone(make_log: Callable[..., Log]) -> None:
    reader = reader_of([make_log(2, size=BATCH_BYTES * 2)], [0])
    assert [read(reader).events, read(reader).events] == [1, 1]
    assert reader.offsets == [2]


def test_gap_is_announced_before_later_events(make_log: Callable[..., Log]) -> None:
    reader = reader_of([make_log(10, kept=3)], [7], lost="e-1")
    page = read(reader)
    gap, *events = decode(page.payload)
    assert (gap.event, json.loads(str(gap.data))) == ("gap", {"requested": "e-1", "oldest": "e-8", "newest": "e-10"})
    assert [event.data for event in events] == ["8", "9", "10"]
    assert (page.gap, page.events, reader.lost) == ("e-1", 3, None)


def test_gap_that_opens_between_two_pages_is_announced(make_log: Callable[..., Log]) -> None:
    log = make_log(5, size=BATCH_BYTES)
    reader = reader_of([log], [0])
    assert decode(read(reader).payload)[-1].id == "e-1"
    publish(log, "6", kept=2)
    page = read(reader)
    assert page.gap == "e-1", "the client was there"
    assert reader.offsets == [5]
    assert json.loads(str(decode(page.payload)[0].data))["oldest"] == "e-5"


def test_gap_of_one_channel_keeps_positions_of_others(make_log: Callable[..., Log]) -> None:
    logs = [make_log(10, kept=2, epoch="a"), make_log(3, epoch="b")]
    events = read_all(reader_of(logs, [1, 1]))
    assert events[0].event == "gap"
    assert [event.id for event in events[1:]] == ["a-9,b-1", "a-10,b-1", "a-10,b-2", "a-10,b-3"]


def test_gap_without_later_events_is_taken_alone(make_log: Callable[..., Log]) -> None:
    reader = reader_of([make_log(3)], [3], lost="x-1")
    gap = reader.take_gap()
    assert gap is not None
    assert (gap.events, gap.gap) == (0, "x-1")
    assert gap.payload.endswith(b"\n\nid: e-3\n\n")
    assert reader.take_gap() is None


def test_clients_at_one_position_share_a_page(make_log: Callable[..., Log]) -> None:
    logs, pages = [make_log(5)], PageCache(ManualScheduler())
    first = read(reader_of(logs, [2], pages=pages))
    second = reader_of(logs, [2], pages=pages)
    assert read(second) is first
    assert second.offsets == [5]
    assert (read(reader_of(logs, [3], pages=pages)) is first, pages.built) == (False, 2)


def test_page_gets_ids_of_live_channels_when_written(clock: Clock) -> None:
    logs = [Log("a", 0, clock), Log("b", 0, clock)]
    publish(logs[0], "of the log")
    cursor = Cursor(2)
    reader = LogReader(logs, [0, 0], None, cursor, PageCache(ManualScheduler()))
    page = reader.read([0], (1, 0), is_alone=False)
    assert not isinstance(page, Output)
    cursor.move(1, logs[1], 7)  # a list has delivered events of the other channel
    assert [event.id for event in decode(page().payload)] == ["a-1,b-7"]


def test_behind_returns_channels_before_wanted_offsets(make_log: Callable[..., Log]) -> None:
    reader = reader_of([make_log(5), make_log(5), make_log(5)], [4, 5, 0])
    assert reader.behind([0, 1, 2], (5, 5, 5)) == [0, 2]
    assert reader.behind([0, 1], (4, 5, 5)) == []


# Ids.


def test_cursor_joins_ids_of_all_channels(make_log: Callable[..., Log]) -> None:
    cursor = Cursor(2)
    cursor.move(0, make_log(0, epoch="a"), 3)
    cursor.move(1, make_log(0, epoch="b"), 12)
    assert (cursor.text(), cursor.encode()) == ("a-3,b-12", b"id: a-3,b-12\n\n")
    assert cursor.line_bytes == len(b"id: a-3,b-12\n")
    frame = Frame(b"id: b-13\ndata: x\n\n", "message", 13, len(b"id: b-13\n"), 5.0)
    assert cursor.with_ids(1, frame) == Frame(b"id: a-3,b-13\ndata: x\n\n", "message", 13, len(b"id: a-3,b-13\n"), 5.0)
    assert cursor.text() == "a-3,b-13"


def test_cursor_ignores_event_sent_to_the_list() -> None:
    cursor = Cursor(2)
    frame = Frame(b"data: sent to the list\n\n", "message")
    assert cursor.with_ids(0, frame) is frame
    assert cursor.ids == [b"", b""]


def test_gap_truncates_requested_id_to_maximum(make_log: Callable[..., Log]) -> None:
    log, cursor = make_log(1), Cursor(1)
    cursor.move(0, log, 1)
    [gap] = decode(encode_gap("x" * 5000, [log], cursor))
    assert json.loads(str(gap.data))["requested"] == "x" * 2048
