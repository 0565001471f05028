"""Pages that are read from logs, the gaps in them, and the ids that clients get."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from flask_sse_emitters import Event
from flask_sse_emitters.brokers.event_log import Log
from flask_sse_emitters.channels.replay.cursor import Cursor
from flask_sse_emitters.channels.replay.gap import encode_gap
from flask_sse_emitters.channels.replay.pages import PageCache
from flask_sse_emitters.channels.replay.reading import LogReader
from flask_sse_emitters.streams.interfaces import Output
from flask_sse_emitters.testing import decode
from flask_sse_emitters.wire.frame import BATCH_BYTES, Frame
from tests.unit.channels.replay.logs import publish
from tests.unit.doubles.clock import ManualScheduler


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


def test_channels_are_read_in_publish_order(scheduler: ManualScheduler) -> None:
    logs = [Log("a", 0, scheduler.clock), Log("b", 0, scheduler.clock)]
    for number, index in enumerate([0, 1, 1, 0, 1]):
        scheduler.now += 1
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


def test_page_gets_ids_of_live_channels_when_written(scheduler: ManualScheduler) -> None:
    logs = [Log("a", 0, scheduler.clock), Log("b", 0, scheduler.clock)]
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
