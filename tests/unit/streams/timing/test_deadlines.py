"""The timers of a stream: its timeout, the attach deadline, heartbeats, and the write timeout."""

from __future__ import annotations

from datetime import timedelta

import pytest

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.timing.timed_stream import HEARTBEAT
from flask_sse_emitters.testing import decode
from tests.unit.doubles.clock import Make, ManualScheduler
from tests.unit.doubles.writer import FakeWriter


def test_timeout_runs_from_creation_without_a_client_and_zero_is_none(make: Make, scheduler: ManualScheduler) -> None:
    endless, emitter = make(timeout=0, heartbeat=0), make(timeout=timedelta(seconds=10))
    FakeWriter(endless).take()
    assert len(scheduler.live_timers()) == 2, "one timer each, for all its deadlines"
    scheduler.pass_time(9.9)
    assert emitter.is_open
    scheduler.pass_time(0.2)
    assert emitter.close_reason is CloseReason.TIMEOUT
    scheduler.pass_time(10**5)
    assert endless.is_open


def test_heartbeat_is_sent_only_after_silence(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=10)
    writer = FakeWriter(emitter)
    assert writer.take() == b""
    for _ in range(20):
        scheduler.pass_time(5)
        emitter.send("busy")
        writer.take_all()
    assert writer.got == [b"data: busy\n\n"] * 20
    for _ in range(100):
        scheduler.pass_time(1)
        writer.take()
    assert set(writer.got[20:]) == {HEARTBEAT}
    assert 9 <= len(writer.got[20:]) <= 13, "they keep their interval"
    assert len(scheduler.live_timers()) == 1


def test_stream_that_begins_soon_sets_one_timer_in_all(make: Make, scheduler: ManualScheduler) -> None:
    """One for its view, and another for its first heartbeat, were a tenth of what a new client costs."""
    writer = FakeWriter(make())
    assert writer.take() == b""
    assert len(scheduler._timers) == 1, "cancelled ones included"


@pytest.mark.parametrize("seconds_in_view", [5, 20])
def test_heartbeat_of_a_stream_that_begins_late_is_not_early(
    make: Make, scheduler: ManualScheduler, seconds_in_view: int
) -> None:
    emitter = make(timeout=0, heartbeat=10)
    scheduler.pass_time(seconds_in_view)
    writer = FakeWriter(emitter)
    writer.take()
    scheduler.pass_time(7.9)
    assert writer.got == []
    scheduler.pass_time(2.1)
    assert writer.got == [HEARTBEAT]


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
    woken = []
    for _ in range(10):
        scheduler.pass_time(1)
        woken.append(sum(writer.wakes for writer in writers))
    assert any(0 < count < 200 for count in woken), "not all in one second"


def test_write_timeout_disconnects_a_client_that_takes_nothing(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0, heartbeat=0)
    writer = FakeWriter(emitter)
    assert writer.take() == b""
    scheduler.pass_time(100)
    emitter.send("x")
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
    writer = FakeWriter(emitter, direct=True)  # else it would be amid the write of a heartbeat for 5 s
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


def test_write_timeout_spares_a_client_while_its_own_process_is_late(make: Make, scheduler: ManualScheduler) -> None:
    emitter = make(timeout=0)
    writer = FakeWriter(emitter)
    emitter.send("x")
    writer.take()
    writer.in_flight = 0
    scheduler.pass_time(300)
    assert emitter.is_open
    writer.take()
    scheduler.writes = False
    emitter.send("y")
    scheduler.pass_time(300)  # the writer was woken, and has not run
    assert emitter.is_open
    assert writer.take() == b"data: y\n\n"


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
