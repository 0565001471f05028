"""Pending events: overflow beyond their bounds, what drop_oldest and coalesce drop, and large events."""

from __future__ import annotations

import pytest

from flask_sse_emitters import CloseReason, EmitterClosed, Event
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.pending.offer import offer
from flask_sse_emitters.testing import decode
from flask_sse_emitters.wire.frame import make_frame
from tests.unit.doubles.clock import Make
from tests.unit.doubles.writer import FakeWriter


def test_backlog_keeps_a_large_event_to_its_last_byte_shared_by_all(make: Make) -> None:
    frame = make_frame("x" * 200_000, lambda _: "", 1_000_000)
    emitters = [make() for _ in range(3)]
    for emitter in emitters:
        offer(stream_of(emitter), frame)
        stream_of(emitter).next_output()
    assert all(stream_of(emitter).outgoing.backlog._begun is frame.payload for emitter in emitters)
    assert [stream_of(emitter).outgoing.backlog.size for emitter in emitters] == [len(frame.payload) - 65_536] * 3
    got = b"".join(FakeWriter(emitters[0]).take_all())
    assert frame.payload.endswith(got)
    assert stream_of(emitters[0]).outgoing.backlog.size == 0


def test_overflow_close_ends_the_stream_at_the_first_event_too_many(make: Make) -> None:
    emitter = make(max_pending=2)
    writer = FakeWriter(emitter)
    emitter.send(1)
    assert emitter.try_send(2) is True
    with pytest.raises(EmitterClosed, match=r"OVERFLOW.*max_pending=2") as caught:
        emitter.send(3)
    assert caught.value.reason is CloseReason.OVERFLOW
    assert (emitter.close_reason, emitter.pending, emitter.dropped) == (CloseReason.OVERFLOW, 0, 0)
    assert emitter.try_send(4) is False
    assert (writer.cuts, writer.take()) == (1, None), "a busy writer is cut"


def test_overflow_happens_beyond_max_pending_bytes_too(make: Make) -> None:
    size = len(Event("x" * 100).encode())
    emitter = make(max_pending_bytes=2 * size)
    emitter.send("x" * 100)
    emitter.send("x" * 100)
    assert emitter.try_send("") is False


def test_drop_oldest_keeps_the_newest_and_counts_the_dropped(make: Make) -> None:
    emitter = make(max_pending=3, overflow="drop_oldest")
    for number in range(10):
        emitter.send(number)
    assert (emitter.pending, emitter.dropped, emitter.is_open) == (3, 7, True)
    assert FakeWriter(emitter).take() == b"data: 7\n\ndata: 8\n\ndata: 9\n\n"


def test_drop_oldest_makes_room_in_bytes(make: Make) -> None:
    emitter = make(max_pending_bytes=40, overflow="drop_oldest")
    for text in ("a", "b", "c", "d" * 20):
        emitter.send(text)
    assert (emitter.pending, emitter.dropped) == (2, 2)
    emitter.send("too large for any room" * 10)
    assert (emitter.pending, emitter.dropped) == (2, 3)


def test_drop_oldest_keeps_the_newest_behind_a_large_event_under_way(make: Make) -> None:
    emitter = make(max_pending_bytes=200_100, overflow="drop_oldest")
    writer = FakeWriter(emitter)
    emitter.send("a" * 200_000)
    begun = writer.take()
    assert begun
    for text in ("b", "c" * 150_000, "d" * 150_000):
        emitter.send(text)
    assert (emitter.pending, emitter.dropped, emitter.is_open) == (1, 2, True)
    events = decode(begun + b"".join(writer.take_all()))
    assert [event.data for event in events] == ["a" * 200_000, "d" * 150_000]
    assert stream_of(emitter).outgoing.backlog.size == 0


def test_coalesce_keeps_the_newest_of_each_name_until_an_overflow(make: Make) -> None:
    emitter = make(max_pending=3, overflow="coalesce")
    for name, data in (("a", 1), ("b", 1), ("a", 2), (None, 1), ("a", 3), (None, 2)):
        emitter.send(Event(data, event=name))
    assert (emitter.pending, emitter.dropped) == (3, 3)
    assert FakeWriter(emitter).take() == b"event: b\ndata: 1\n\nevent: a\ndata: 3\n\ndata: 2\n\n"
    for name in "abc":
        emitter.send(Event(1, event=name))
    assert emitter.try_send(Event(1, event="d")) is False, "one name too many is an overflow"
    assert emitter.close_reason is CloseReason.OVERFLOW


def test_coalesce_replaces_only_events_that_are_alike(make: Make) -> None:
    emitter = make(overflow="coalesce")
    emitter.send("data")
    emitter.send(Event(comment="no data"))
    emitter.send(Event(retry=5))
    assert (emitter.pending, emitter.dropped) == (3, 0)
    emitter.send(Event("newer", event="message"))
    assert (emitter.pending, emitter.dropped) == (3, 1)
