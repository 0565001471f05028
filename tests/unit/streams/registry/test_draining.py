"""Draining the open streams: when they end, when they are cut, and what new ones get."""

from __future__ import annotations

from dataclasses import replace

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry.draining import drain
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.writer import FakeWriter


def test_drain_waits_for_grace_and_cuts_streams_at_timeout(scheduler: ManualScheduler) -> None:
    settings = replace(DEFAULTS, drain_seconds=4, attach_seconds=1000)
    registry = StreamRegistry(settings, scheduler)

    def admit() -> tuple[SseEmitter, int]:
        emitter = emitter_at(scheduler, 0)
        stream_of(emitter).attach(settings, registry)
        return emitter, registry.admit(emitter)

    writers = [FakeWriter(admit()[0]) for _ in range(100)]
    first = writers[0]
    drain(registry, grace=1)
    drain(registry)
    late, retry = admit()
    assert 1500 <= retry <= 6000
    assert (late.close_reason, len(registry)) == (CloseReason.SHUTDOWN, 100)
    scheduler.pass_time(0.9)
    assert all(writer.emitter.is_open for writer in writers)
    first.emitter.send("just in time")
    scheduler.pass_time(0.2)
    assert {writer.emitter.close_reason for writer in writers} == {CloseReason.SHUTDOWN}
    event, closing = first.take_all()
    assert event == b"data: just in time\n\n"
    assert closing.startswith(b"retry: ")
    stream_of(first.emitter).release(ConnectionError())
    assert len(registry) == 99
    scheduler.pass_time(2.8)
    assert not any(writer.cuts for writer in writers)
    scheduler.pass_time(0.2)
    assert all(writer.cuts == 1 for writer in writers[1:])
    assert registry.closed == {"shutdown": 1}
