"""What still ends a stream after its completion, while it awaits its broker or its client."""

from __future__ import annotations

from collections.abc import Callable

from flask_sse_emitters import CloseReason, SseEmitter, SseEmitters
from flask_sse_emitters.broadcast.delivery import Delivery
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.machine import HEARTBEAT
from tests.unit.doubles.clock import Make, ManualScheduler
from tests.unit.doubles.writer import FakeWriter


def test_ended_stream_of_a_client_that_leaves_is_cut(make: Make) -> None:
    emitter = make()
    writer = FakeWriter(emitter)
    emitter.complete()
    stream_of(emitter).end(CloseReason.DISCONNECTED, ConnectionResetError("the client left"))
    assert (emitter.close_reason, writer.cuts) == (CloseReason.COMPLETED, 1)


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


def test_completed_stream_that_awaits_its_broker_sends_closing_at_shutdown(make: Make) -> None:
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
