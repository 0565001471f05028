"""Replay of an app's channels in pages: their order, ids and gaps while events come in, and their cache."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters import Event
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.brokers.event_ids import read_ids
from flask_sse_emitters.brokers.event_log import Log
from flask_sse_emitters.channels.replay.machine import Replay
from flask_sse_emitters.channels.replay.pages import MAX_PAGES, PAGE_SECONDS, Page, PageCache
from flask_sse_emitters.streams.interfaces import Output
from flask_sse_emitters.testing import decode
from flask_sse_emitters.wire.frame import BATCH_BYTES, Frame
from tests.support.board import Board, gap_of, moved, texts
from tests.unit.doubles.clock import ManualScheduler


def test_replay_of_many_channels_reads_little_more_than_it_writes(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each page is as large as the ids of all channels allow, and each channel is read for its share only."""
    names = [f"channel-{number}" for number in range(40)]
    for _ in range(100):
        for name in names:
            board.publish(name, "x" * 200)
    after, read, pieces = Log.after, 0, []

    def counted(*args: Any) -> list[Frame]:
        nonlocal read
        frames = after(*args)
        read += len(frames)
        return frames

    monkeypatch.setattr(Log, "after", counted)
    with board.open(*names, last="0-0") as stream:
        while stream._body.try_fetch():  # the test client has taken the first piece already
            pieces.append(next(stream._body))
    last = str(decode(b"".join(pieces))[-1].id)
    assert {position.offset for position in read_ids(last, 40) or ()} == {100}
    assert 10 < len(pieces) < 50
    assert max(map(len, pieces)) < 1.1 * BATCH_BYTES, "ids grow by a digit"
    assert read < 2 * 4_000


def test_replay_of_channels_of_different_age_keeps_publish_order(board: Board) -> None:
    """All events of one channel are older than all of the other, and far more than its share of a page."""
    board.publish("old", *range(900))
    board.publish("new", *range(900, 1_000))
    events = board.replayed("new", "old", last="0-0")
    assert texts(events[1:]) == [str(number) for number in range(1_000)]


def test_event_larger_than_a_page_is_replayed(board: Board) -> None:
    sizes = [1, 2 * BATCH_BYTES, 3 * BATCH_BYTES, 1]
    board.publish("a", *("x" * size for size in sizes))
    assert [len(event.data) for event in board.replayed("a", last="0-0")[1:]] == sizes


def test_ids_match_written_events_if_live_events_come_during_replay(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel is live; an event of it arrives after part of the other's log was read, but before it is written."""
    a = board.publish("a", *("x" * 1000 for _ in range(300)))
    b = board.publish("b", 1)
    prepare = Replay.prepare
    published: list[str] = []

    def and_then_publish(replay: Replay) -> bool | None:
        ready = prepare(replay)
        if ready and len(published) < 5:
            published.extend(board.publish("b", "between"))
        return ready

    last = f"{a[0]},{b[0]}"
    with monkeypatch.context() as patch:
        patch.setattr(Replay, "prepare", and_then_publish)
        with board.open("a", "b", last=last) as stream:
            events = stream.ready()
    assert len(published) == 5
    assert [event.data for event in events].count("between") == len(published)
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if event.data == "between" or len(seen) % 50 == 0:
            assert len(board.replayed("a", "b", last=str(event.id))) == len(events) - len(seen)


def test_hole_that_opens_while_log_is_read_is_a_gap(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(SSE_HISTORY=3)
    ids = board.publish("a", 1, 2, 3)
    after, meanwhile = Log.after, [True]

    def evict_meanwhile(log: Log, *where: int) -> list[Frame]:
        if meanwhile:
            meanwhile.clear()
            ids.extend(board.publish("a", 4, 5))
        return after(log, *where)

    monkeypatch.setattr(Log, "after", evict_meanwhile)
    events = board.replayed("a", last=ids[0])
    assert gap_of(events) == {"requested": ids[0], "oldest": ids[2], "newest": ids[4]}
    assert texts(events[1:]) == ["3", "4", "5"]


def test_initial_position_excludes_events_that_follow_it(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event arrives once the first of two channels is live, before the position is written."""
    start = [board.publish(name, 0)[0] for name in ("a", "b")]
    go_live = Delivery.go_live
    published: list[str] = []

    def and_publish(delivery: Delivery, member: Any, offset: int) -> bool:
        live = go_live(delivery, member, offset)
        if not published:
            published.extend(board.publish("a", 1))
        return live

    monkeypatch.setattr(Delivery, "go_live", and_publish)
    with board.client.get("/events?channel=a&channel=b") as response:
        pieces = response.iter_encoded()
        blocks = (next(pieces) + next(pieces)).decode().split("\n\n")
    assert blocks[1] == f"id: {start[0]},{start[1]}"
    assert blocks[2] == f"id: {published[0]},{start[1]}\ndata: 1"


def test_page_of_one_position_is_built_once_for_all_clients() -> None:
    board = Board()
    ids = board.publish("a", *range(500))
    b = board.publish("b", 1)
    pages = board.sse._channels()._pages
    for _ in range(3):
        assert len(board.replayed("a", last=ids[99])) == 400
    assert pages.built == 1
    for _ in range(3):
        assert len(board.replayed("a", "b", last=f"{ids[99]},{moved(b[0], -1)}")) == 401
    assert pages.built == 2


def test_pages_unused_for_a_while_are_freed_and_their_number_is_bounded(scheduler: ManualScheduler) -> None:
    pages = PageCache(scheduler)
    page = Page(Output(b"x", 1), (1,), (b"a-1",), (1,), None)
    pages.put("old", page)
    scheduler.pass_time(PAGE_SECONDS * 0.6)
    pages.put("new", page)
    assert pages.get("old", (1,)) is page
    scheduler.pass_time(PAGE_SECONDS * 0.9)
    assert len(pages) == 2
    scheduler.pass_time(PAGE_SECONDS * 2)
    assert (len(pages), scheduler.live_timers()) == (0, [])
    for number in range(MAX_PAGES * 2):
        pages.put(number, page)
    assert len(pages) == MAX_PAGES
    assert pages.get(MAX_PAGES * 2 - 1, (1,)) is page
