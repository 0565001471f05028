"""The state machine of one client, with time held still."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, current_app, g

from flask_sse_emitters import SSE, CloseReason, EmitterClosed, Event, InvalidEvent, SseEmitter, SseEmitters, SseError
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.machine import HEARTBEAT
from flask_sse_emitters.streams.outgoing import WriterState
from flask_sse_emitters.testing import decode
from flask_sse_emitters.wire.frame import make_frame
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.writer import FakeWriter

Make = Callable[..., SseEmitter]


@pytest.fixture
def make(scheduler: ManualScheduler) -> Make:
    return lambda *args, **kwargs: emitter_at(scheduler, *args, **kwargs)


def journal_of(emitter: SseEmitter) -> list[Any]:
    journal: list[Any] = []
    emitter.on_completion(lambda: journal.append("completion"))
    emitter.on_timeout(lambda: journal.append("timeout"))
    emitter.on_error(lambda error: journal.append(error))
    return journal


def test_emitter_events_sent_before_the_client_are_delivered_first_in_order(make: Make) -> None:
    emitter = make()
    for number in range(3):
        emitter.send(number)
    assert emitter.pending == 3
    writer = FakeWriter(emitter)
    emitter.send("late")
    assert [event.data for event in decode(b"".join(writer.take_all()))] == ["0", "1", "2", "late"]
    assert emitter.pending == 0


def test_emitter_sends_events_builders_and_plain_data(make: Make) -> None:
    emitter = make()
    builder = SseEmitter.event().name("connect").data("connected!")
    for event in (Event("a", id="1"), builder, builder, "text", {"a": 1}, 0, ""):
        emitter.send(event)
    wire = FakeWriter(emitter).take()
    assert wire == (
        b"id: 1\ndata: a\n\n"
        b"event: connect\ndata: connected!\n\n"
        b"event: connect\ndata: connected!\n\n"
        b'data: text\n\ndata: {"a": 1}\n\ndata: 0\n\ndata: \n\n'
    )


def test_emitter_wakes_an_idle_writer_once(make: Make) -> None:
    """The writer is idle after it took nothing; one wake serves all that is sent until it takes."""
    emitter = make()
    writer = FakeWriter(emitter)
    emitter.send("before it took")
    assert writer.wakes == 0
    assert writer.take()
    assert writer.take() == b""
    emitter.send("a")
    emitter.send("b")
    assert writer.wakes == 1
    assert writer.take() == b"data: a\n\ndata: b\n\n"
    assert writer.take() == b""
    emitter.complete()
    assert writer.wakes == 2
    assert writer.take() is None


def test_emitter_large_backlog_leaves_in_several_writes(make: Make) -> None:
    emitter = make()
    payload = "x" * 20_000
    for _ in range(10):
        emitter.send(payload)
    taken = FakeWriter(emitter).take_all()
    assert [len(decode(chunk)) for chunk in taken] == [3, 3, 3, 1]


ENDS: list[tuple[CloseReason, Callable[[SseEmitter, ManualScheduler], object], list[str]]] = [
    (CloseReason.COMPLETED, lambda emitter, _: emitter.complete(), ["completion"]),
    (CloseReason.TIMEOUT, lambda _, scheduler: scheduler.pass_time(60), ["timeout", "completion"]),
    (CloseReason.ERROR, lambda emitter, _: emitter.complete_with_error(KeyError("x")), ["KeyError", "completion"]),
    (
        CloseReason.DISCONNECTED,
        lambda emitter, _: stream_of(emitter).end(CloseReason.DISCONNECTED, OSError("gone")),
        ["OSError", "completion"],
    ),
    (CloseReason.OVERFLOW, lambda emitter, _: [emitter.try_send("x") for _ in range(1001)], ["SseError", "completion"]),
    (CloseReason.SHUTDOWN, lambda emitter, _: stream_of(emitter).end(CloseReason.SHUTDOWN), ["completion"]),
]


@pytest.mark.parametrize(("reason", "end", "calls"), ENDS, ids=[reason.name for reason, _, _ in ENDS])
def test_emitter_end_sets_its_close_reason_and_runs_its_callbacks(
    reason: CloseReason,
    end: Callable[[SseEmitter, ManualScheduler], object],
    calls: list[str],
    make: Make,
    scheduler: ManualScheduler,
) -> None:
    """The first end counts. Callbacks run on the scheduler, also those registered after the end. No timer is left."""
    emitter = make(timeout=60, heartbeat=0)
    writer = FakeWriter(emitter)
    writer.take()
    journal = journal_of(emitter)
    late: list[Any] = []

    @emitter.on_completion
    def register_late() -> None:
        assert not emitter.is_open
        emitter.on_timeout(lambda: late.append("timeout"))
        emitter.on_error(late.append)
        emitter.on_completion(lambda: late.append("completion"))

    assert (emitter.is_open, emitter.close_reason, emitter.error) == (True, None, None)
    end(emitter, scheduler)
    assert (emitter.is_open, emitter.close_reason) == (False, reason)
    assert journal == [], "never on the thread that ends the stream"
    scheduler.run_jobs()
    names = [call if isinstance(call, str) else type(call).__name__ for call in journal]
    assert names == calls
    assert [call if isinstance(call, str) else type(call).__name__ for call in late] == calls
    assert (emitter.error is not None) is (reason.name in ("ERROR", "DISCONNECTED", "OVERFLOW"))

    for other_reason, other_end, _ in ENDS:  # the first end counts
        if other_reason is not CloseReason.TIMEOUT:
            other_end(emitter, scheduler)
    scheduler.run_jobs()
    assert emitter.close_reason is reason
    assert len(journal) == len(calls)
    writer.take_all()
    assert scheduler.live_timers() == []


def test_callbacks_of_one_kind_run_in_the_order_of_registration(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=1)
    calls: list[str] = []
    for name in ("c1", "c2"):
        emitter.on_completion(lambda name=name: calls.append(name))
    for name in ("t1", "t2"):
        emitter.on_timeout(lambda name=name: calls.append(name))
    scheduler.pass_time(1)
    scheduler.run_jobs()
    assert calls == ["t1", "t2", "c1", "c2"]


@pytest.mark.parametrize("error", [ValueError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_callback_that_raises_is_logged_and_the_others_run(
    error: BaseException, make: Make, scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = make()
    calls: list[str] = []

    @emitter.on_completion
    def fail() -> None:
        raise error

    emitter.on_completion(lambda: calls.append("the next one"))
    emitter.complete()
    scheduler.run_jobs()
    assert calls == ["the next one"]
    assert type(error).__name__ in caplog.text
    emitter.on_completion(lambda: calls.append("a late one"))
    scheduler.run_jobs()
    assert calls == ["the next one", "a late one"]


def test_complete_with_error_wraps_what_is_no_exception(make: Make) -> None:
    emitter = make()
    emitter.complete_with_error("text")  # type: ignore[arg-type]
    assert isinstance(emitter.error, SseError)
    assert "'text', which is not an exception" in str(emitter.error)


def test_callback_that_is_not_callable_is_rejected(make: Make) -> None:
    with pytest.raises(TypeError, match="on_timeout takes something to call, not 'x'"):
        make().on_timeout("x")  # type: ignore[type-var]


def test_send_after_the_end_raises_with_the_reason(make: Make) -> None:
    emitter = make()
    error = KeyError("why")
    emitter.complete_with_error(error)
    with pytest.raises(EmitterClosed, match=r"ended with ERROR: 'why'; use try_send") as caught:
        emitter.send("x")
    assert (caught.value.reason, caught.value.error) == (CloseReason.ERROR, error)
    assert emitter.try_send("x") is False


@pytest.mark.parametrize("event", [b"bytes", {1, 2}, "\ud800", object()])
def test_emitter_invalid_event_is_rejected_and_the_stream_works_on(event: Any, make: Make) -> None:
    emitter = make()
    writer = FakeWriter(emitter)
    with pytest.raises(InvalidEvent):
        emitter.send(event)
    with pytest.raises(InvalidEvent):
        emitter.try_send(event)
    emitter.send("fine")
    assert writer.take() == b"data: fine\n\n"


def test_emitter_pending_events_are_delivered_after_completion(make: Make) -> None:
    """Also after ``complete_with_error``."""
    ends: list[Callable[[SseEmitter], None]] = [
        lambda emitter: emitter.complete(),
        lambda emitter: emitter.complete_with_error(ValueError()),
    ]
    for end in ends:
        emitter = make()
        emitter.send("last words")
        end(emitter)
        writer = FakeWriter(emitter)
        assert [writer.take(), writer.take(), writer.take()] == [b"data: last words\n\n", None, None]


def test_emitter_disconnect_discards_pending_events(make: Make) -> None:
    emitter = make()
    writer = FakeWriter(emitter)
    emitter.send("x")
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert emitter.pending == 0
    assert writer.take() is None


# The timeout, the attach deadline, and heartbeats.


def test_timeout_runs_from_creation_without_a_client(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=timedelta(seconds=10))
    scheduler.pass_time(9.9)
    assert emitter.is_open
    scheduler.pass_time(0.2)
    assert emitter.close_reason is CloseReason.TIMEOUT


def test_timeout_of_zero_never_ends_the_stream(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=0)
    FakeWriter(emitter).take()
    scheduler.pass_time(10**5)
    assert emitter.is_open


def test_emitter_that_no_view_returns_ends_with_an_error(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0)
    journal = journal_of(emitter)
    scheduler.pass_time(29.9)
    assert emitter.is_open
    scheduler.pass_time(0.2)
    assert emitter.close_reason is CloseReason.ERROR
    assert "its stream did not begin within SSE_ATTACH_SECONDS=30" in str(emitter.error)
    scheduler.run_jobs()
    assert journal == [emitter.error, "completion"]


def test_heartbeat_is_sent_only_after_silence(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=10)
    writer = FakeWriter(emitter)
    assert writer.take() == b""
    for _ in range(20):
        scheduler.pass_time(5)
        emitter.send("busy")
        assert writer.take_all() == [b"data: busy\n\n"]
    writer.got.clear()
    scheduler.pass_time(10)
    assert (writer.take(), writer.got) == (b"", [HEARTBEAT])


def test_heartbeats_keep_their_interval(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=10)
    writer = FakeWriter(emitter)
    writer.take()
    for _ in range(100):
        scheduler.pass_time(1)
        writer.take()
    assert writer.got == [HEARTBEAT] * len(writer.got)
    assert 9 <= len(writer.got) <= 13


class FakeMember:
    has_own_ids = False
    has_ended = False
    queued_events = 0

    def __init__(self) -> None:
        self.list = Delivery()
        self.client: Any = None
        self.written_at = 0.0

    def take_queued(self) -> None: ...


def test_heartbeat_is_left_out_after_a_direct_write_of_a_list(make: Make, scheduler: ManualScheduler) -> None:
    emitter, member = make(timeout=0, heartbeat=10), FakeMember()
    writer = FakeWriter(emitter, direct=True)
    assert writer.take() == b""
    assert stream_of(emitter).join(member)
    for _ in range(10):
        member.written_at = scheduler.now
        scheduler.pass_time(5)
    assert writer.beats == 0
    scheduler.pass_time(20)
    assert writer.beats in (2, 3)
    assert stream_of(emitter).outgoing.state is WriterState.IDLE, "the writer need not be woken for that"


def test_heartbeat_is_not_sent_to_a_busy_writer(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=10)
    writer = FakeWriter(emitter)
    emitter.send("x")
    assert writer.take() == b"data: x\n\n"
    scheduler.pass_time(25)  # this one write takes that long
    assert writer.take() == b""
    assert writer.wakes == 0


def test_heartbeats_after_a_common_event_are_spread(make: Make, scheduler: ManualScheduler) -> None:
    writers = [FakeWriter(make(timeout=0, heartbeat=10)) for _ in range(200)]
    for writer in writers:
        writer.take()
    for _ in range(10):
        scheduler.pass_time(1)
        woken = sum(writer.wakes for writer in writers)
        if 0 < woken < 200:
            break
    assert 0 < woken < 200, "not all in one second"


def test_emitter_has_one_timer_and_none_after_its_end(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=60)
    assert len(scheduler.live_timers()) == 1
    writer = FakeWriter(emitter)
    writer.take()
    assert len(scheduler.live_timers()) == 1
    scheduler.pass_time(20)
    assert len(scheduler.live_timers()) == 1
    emitter.complete()
    writer.take_all()
    assert scheduler.live_timers() == []


# A client that takes nothing: the write timeout.


def test_write_timeout_disconnects_a_client_that_takes_nothing(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=0)
    writer = FakeWriter(emitter)
    assert writer.take() == b""
    scheduler.pass_time(100)
    emitter.send("x")
    writer.take()
    scheduler.pass_time(29)
    assert emitter.is_open
    scheduler.pass_time(20)
    assert emitter.close_reason is CloseReason.DISCONNECTED
    assert "the client took nothing for SSE_WRITE_SECONDS=30" in str(emitter.error)
    assert writer.cuts == 1


def test_write_timeout_spares_a_slow_client(make: Make, scheduler: ManualScheduler) -> None:
    """One large event leaves in pieces, so that progress shows."""
    emitter = make(timeout=0)
    writer = FakeWriter(emitter)
    text = "x" * 400_000
    emitter.send(text)
    emitter.send("after it")
    emitter.complete()
    pieces = []
    while piece := writer.take():
        pieces.append(piece)
        scheduler.pass_time(25)
    assert [event.data for event in decode(b"".join(pieces))] == [text, "after it"]
    assert len(pieces) == 8
    assert max(map(len, pieces)) == 65_536
    assert (emitter.close_reason, writer.cuts) == (CloseReason.COMPLETED, 0)


def test_write_timeout_spares_a_client_whose_unsent_bytes_shrink(make: Make, scheduler: ManualScheduler) -> None:
    """Though one write takes minutes: the system's buffer is large, and the line slow."""
    emitter = make(timeout=0)
    writer = FakeWriter(emitter)
    emitter.send("x")
    writer.take()
    for unsent in range(4_000_000, 2_000_000, -100_000):
        writer.in_flight = unsent
        scheduler.pass_time(5)
    assert emitter.is_open
    scheduler.pass_time(60)
    assert emitter.close_reason is CloseReason.DISCONNECTED, "the same bytes for a minute"


def test_vanished_client_that_acknowledges_nothing_is_disconnected(make: Make, scheduler: ManualScheduler) -> None:
    """No write is under way: what it is sent fits the system's buffer, and no write would ever show it."""
    emitter = make(timeout=0)
    writer = FakeWriter(emitter)
    writer.in_flight, writer.has_taken = 3, 500
    for _ in range(100):  # it is on its way at each check, and arrives
        writer.has_taken += 3
        assert pass_and_take(emitter, writer, scheduler)
    writer.in_flight = 0
    for _ in range(100):
        assert pass_and_take(emitter, writer, scheduler)
    writer.in_flight = 3
    lasted = sum(pass_and_take(emitter, writer, scheduler) for _ in range(100))
    assert 30 <= lasted * 5 <= 2 * (30 + 15)
    assert (emitter.close_reason, writer.take()) == (CloseReason.DISCONNECTED, None)


def pass_and_take(emitter: SseEmitter, writer: FakeWriter, scheduler: ManualScheduler) -> bool:
    """Pass five seconds, in which the client takes what comes. Return whether the stream is still open."""
    scheduler.pass_time(5)
    writer.take_all()
    return emitter.is_open


def test_write_timeout_spares_a_client_that_took_all_while_the_process_is_late(
    make: Make, scheduler: ManualScheduler
) -> None:
    emitter = make(timeout=0)
    writer = FakeWriter(emitter)
    emitter.send("x")
    writer.take()
    writer.in_flight = 0
    scheduler.pass_time(300)
    assert emitter.is_open


def test_write_timeout_spares_a_writer_that_was_woken_and_has_not_run(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0)
    writer = FakeWriter(emitter)
    writer.take()
    emitter.send("x")
    scheduler.pass_time(300)
    assert emitter.is_open
    assert writer.take() == b"data: x\n\n"


def test_large_event_is_pending_until_its_last_byte_and_shared_by_all(make: Make) -> None:
    frame = make_frame("x" * 200_000, lambda _: "", 1_000_000)
    emitters = [make() for _ in range(3)]
    for emitter in emitters:
        stream_of(emitter).offer(frame)
        stream_of(emitter).next_output()
    assert all(stream_of(emitter).outgoing.backlog._begun is frame.payload for emitter in emitters)
    assert [stream_of(emitter).outgoing.backlog.size for emitter in emitters] == [len(frame.payload) - 65_536] * 3
    got = b"".join(FakeWriter(emitters[0]).take_all())
    assert frame.payload.endswith(got)
    assert stream_of(emitters[0]).outgoing.backlog.size == 0


def test_ended_stream_of_a_client_that_takes_nothing_is_cut(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=10)
    writer = FakeWriter(emitter)
    for number in range(10):
        emitter.send(f"{number}" * 20_000)
    writer.take()
    scheduler.pass_time(11)
    assert emitter.close_reason is CloseReason.TIMEOUT
    assert writer.cuts == 0
    scheduler.pass_time(40)
    assert emitter.close_reason is CloseReason.TIMEOUT
    assert writer.cuts >= 1
    stream_of(emitter).release(OSError("the server released it"))
    assert scheduler.live_timers() == []


def test_ended_stream_of_a_client_that_leaves_is_cut(make: Make) -> None:
    emitter = make()
    writer = FakeWriter(emitter)
    emitter.complete()
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert (emitter.close_reason, writer.cuts) == (CloseReason.COMPLETED, 1)


# A stream of a channel that has been completed, and whose broker does not answer.


class SilentChannel(SseEmitters):
    """A channel's list, whose broker does not answer whether all events have arrived."""

    def __init__(self) -> None:
        self._delivery = SilentDelivery()


class SilentDelivery(Delivery):
    awaits_broker = True

    def sync(self, done: Callable[[], object]) -> None: ...


def awaiting(emitter: SseEmitter) -> tuple[FakeWriter, SilentChannel]:
    """Complete an emitter, so that it awaits the broker of its channel."""
    writer, channel = FakeWriter(emitter), SilentChannel()
    channel.add(emitter)
    assert writer.take() == b""
    emitter.complete()
    assert (emitter in channel, writer.wakes) == (True, 0)
    return writer, channel


def test_completed_stream_that_awaits_its_broker_sends_heartbeats(make: Make, scheduler: ManualScheduler) -> None:
    writer, _ = awaiting(make(timeout=0, heartbeat=10))
    for number in range(1, 11):
        scheduler.pass_time(10)
        assert (writer.take(), writer.got) == (b"", [HEARTBEAT] * number)


def test_completed_stream_that_awaits_its_broker_ends_at_its_timeout(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=60, heartbeat=0)
    writer, channel = awaiting(emitter)
    scheduler.pass_time(59)
    assert emitter in channel
    scheduler.pass_time(2)
    assert (writer.wakes, writer.take(), len(channel)) == (1, None, 0)
    assert emitter.close_reason is CloseReason.COMPLETED
    assert scheduler.live_timers() == []


def test_completed_stream_that_awaits_its_broker_ends_at_a_disconnect(make: Make) -> None:
    emitter = make()
    writer, channel = awaiting(emitter)
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert (writer.wakes, writer.cuts, writer.take(), len(channel)) == (1, 1, None, 0)


def test_completed_stream_that_awaits_its_broker_sends_its_closing_at_shutdown(make: Make) -> None:
    emitter = make()
    writer, channel = awaiting(emitter)
    stream_of(emitter).end(CloseReason.SHUTDOWN, closing=b"retry: 5\n\n")
    assert (writer.wakes, writer.take(), writer.take(), len(channel)) == (1, b"retry: 5\n\n", None, 0)


def test_completed_stream_that_no_view_returns_stops_awaiting_its_broker(
    make: Make, scheduler: ManualScheduler
) -> None:
    emitter, channel = make(), SilentChannel()
    channel.add(emitter)
    emitter.complete()
    scheduler.pass_time(29)
    assert emitter in channel
    scheduler.pass_time(2)
    assert (len(channel), scheduler.live_timers()) == (0, [])


# Overflow: bounds for pending events.


def test_overflow_close_ends_the_stream_at_the_first_event_too_many(make: Make) -> None:
    emitter = make(max_pending=2)
    emitter.send(1)
    emitter.send(2)
    with pytest.raises(EmitterClosed, match=r"OVERFLOW.*max_pending=2") as caught:
        emitter.send(3)
    assert caught.value.reason is CloseReason.OVERFLOW
    assert (emitter.close_reason, emitter.pending, emitter.dropped) == (CloseReason.OVERFLOW, 0, 0)
    assert emitter.try_send(4) is False


def test_overflow_makes_try_send_return_false(make: Make) -> None:
    emitter = make(max_pending=1)
    assert [emitter.try_send(1), emitter.try_send(2), emitter.try_send(3)] == [True, False, False]


def test_overflow_happens_beyond_max_pending_bytes_too(make: Make) -> None:
    size = len(Event("x" * 100).encode())
    emitter = make(max_pending_bytes=2 * size)
    emitter.send("x" * 100)
    emitter.send("x" * 100)
    assert emitter.try_send("") is False


def test_overflow_does_not_count_what_the_writer_took(make: Make) -> None:
    emitter = make(max_pending=2)
    writer = FakeWriter(emitter)
    for number in range(10):
        emitter.send(number)
        emitter.send(number)
        assert writer.take()
    assert emitter.is_open


def test_overflow_cuts_the_connection_of_a_busy_writer(make: Make) -> None:
    emitter = make(max_pending=1)
    writer = FakeWriter(emitter)
    emitter.try_send(1)
    emitter.try_send(2)
    assert (writer.cuts, writer.take()) == (1, None)


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


def test_coalesce_keeps_the_newest_of_each_name_and_overflows_at_a_name_too_many(make: Make) -> None:
    emitter = make(max_pending=3, overflow="coalesce")
    for name, data in (("a", 1), ("b", 1), ("a", 2), (None, 1), ("a", 3), (None, 2)):
        emitter.send(Event(data, event=name))
    assert (emitter.pending, emitter.dropped) == (3, 3)
    assert emitter.try_send(Event(1, event="c")) is False, "one name too many is an overflow"
    assert emitter.close_reason is CloseReason.OVERFLOW


def test_coalesced_events_come_in_the_order_of_their_newest(make: Make) -> None:
    emitter = make(overflow="coalesce")
    for name, data in (("a", 1), ("b", 1), ("a", 2)):
        emitter.send(Event(data, event=name))
    taken = FakeWriter(emitter).take()
    assert taken is not None
    assert decode(taken) == [Event("1", event="b"), Event("2", event="a")]


def test_coalesce_replaces_only_events_that_are_alike(make: Make) -> None:
    emitter = make(overflow="coalesce")
    emitter.send("data")
    emitter.send(Event(comment="no data"))
    emitter.send(Event(retry=5))
    assert (emitter.pending, emitter.dropped) == (3, 0)
    emitter.send(Event("newer", event="message"))
    assert (emitter.pending, emitter.dropped) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": -1}, "timeout must be seconds as a number or a timedelta, 0 for never, not -1"),
        ({"timeout": "60"}, "timeout must be seconds"),
        ({"timeout": True}, "timeout must be seconds"),
        ({"timeout": float("nan")}, "timeout must be seconds"),
        ({"timeout": float("inf")}, "timeout must be seconds"),
        ({"timeout": 10**400}, "timeout must be seconds"),
        ({"timeout": timedelta(seconds=-1)}, "timeout must be seconds"),
        ({"heartbeat": -0.5}, "heartbeat must be seconds"),
        ({"max_pending": 0}, "max_pending must be an int, 1 or more, not 0"),
        ({"max_pending": 1.5}, "max_pending must be an int"),
        ({"max_pending_bytes": True}, "max_pending_bytes must be an int"),
        ({"overflow": "drop"}, 'overflow must be "close", "drop_oldest" or "coalesce", not \'drop\''),
        ({"overflow": ["close"]}, "overflow must be"),
    ],
)
def test_emitter_argument_that_is_wrong_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SseEmitter(**arguments)


# The app, the log, repr and pickle.


def test_callbacks_run_in_the_context_of_the_emitters_app(scheduler: ManualScheduler) -> None:
    app = Flask("mine")
    SSE(app)
    popped: list[str] = []
    app.teardown_appcontext(lambda _: popped.append(g.name))
    seen: list[str] = []

    with app.app_context():
        g.name = "outer"
        emitter = emitter_at(scheduler)

    @emitter.on_completion
    def look() -> None:
        seen.append(current_app.name)
        g.name = "callback"

    popped.clear()
    emitter.complete()
    scheduler.run_jobs()
    assert (seen, popped) == (["mine"], ["callback"])


def test_callbacks_run_though_a_teardown_raises(scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)
    SSE(app)

    @app.teardown_appcontext
    def fail(_: BaseException | None) -> None:
        if g.get("in_callback"):
            raise RuntimeError("no database")

    with app.app_context():
        emitter = emitter_at(scheduler)
    calls: list[int] = []

    def call() -> None:
        g.in_callback = True
        calls.append(1)

    emitter.on_completion(call)
    emitter.on_completion(call)
    emitter.complete()
    scheduler.run_jobs()
    assert calls == [1, 1]
    assert "no database" in caplog.text


def test_emitter_json_is_made_by_its_app_or_the_senders(scheduler: ManualScheduler) -> None:
    """An emitter made outside an app uses the app of the context in which it sends."""
    app = Flask(__name__)
    SSE(app)
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    outside = emitter_at(scheduler)
    with app.app_context():
        inside = emitter_at(scheduler)
        outside.send(["é"])
    inside.send(["é"])
    for emitter in (inside, outside):
        assert FakeWriter(emitter).take() == 'data: ["é"]\n\n'.encode()


def test_emitter_end_is_one_debug_log_line(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flask_sse_emitters")
    emitter = make()
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    emitter.complete()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "DISCONNECTED" in caplog.text
    assert "Traceback" not in caplog.text


def test_emitter_repr_shows_its_state(make: Make) -> None:
    emitter = make()
    emitter.send(1)
    assert "open, 1 pending" in repr(emitter)
    emitter.complete()
    assert "COMPLETED, 1 pending" in repr(emitter)


def test_emitter_closed_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(EmitterClosed(CloseReason.TIMEOUT)))
    assert (error.reason, error.error) == (CloseReason.TIMEOUT, None)
