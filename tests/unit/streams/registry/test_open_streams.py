"""The register of open streams: what it logs, counts and forgets, also in a forked child, and how it drains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask

from flask_sse_emitters import CloseReason, SseEmitter
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.signals import emitter_moved, gap_sent
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry import open_streams as streams_module
from flask_sse_emitters.streams.registry.draining import drain
from flask_sse_emitters.streams.registry.identity import Reader
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from tests.support.board import Board, by_header
from tests.unit.doubles.clock import ManualScheduler, emitter_at
from tests.unit.doubles.writer import FakeWriter


def test_reached_limit_is_logged_once_a_minute(scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture) -> None:
    streams = StreamRegistry(replace(DEFAULTS, max_clients=1), scheduler)
    streams.admit(SseEmitter())
    for _ in range(61):
        streams.admit(SseEmitter())
        scheduler.pass_time(2)
    assert len([record for record in caplog.records if "SSE_MAX_CLIENTS=1" in record.message]) == 3
    assert (len(streams), streams.refused) == (1, 61)


def test_stream_that_has_moved_counts_as_neither_opened_nor_closed() -> None:
    streams, emitter = StreamRegistry(DEFAULTS), SseEmitter()
    assert streams.adopt(emitter, None) is None
    assert (len(streams), streams.opened) == (1, 0)
    stream_of(emitter).close_reason = CloseReason.SHUTDOWN
    streams.note_moved_out(stream_of(emitter))
    streams.leave(stream_of(emitter))
    assert (len(streams), streams.closed) == (0, {})
    assert streams.moves.figures() == {"in": 1, "out": 1, "refused": {}}


def test_stream_that_moves_is_told_of_to_receivers_in_both_processes(scheduler: ManualScheduler) -> None:
    app, told = Flask(__name__), list[tuple[str, SseEmitter]]()

    def note(_: Flask, *, emitter: SseEmitter, direction: str) -> None:
        told.append((direction, emitter))

    streams, emitter = StreamRegistry(DEFAULTS, scheduler, app), emitter_at(scheduler, 0)
    with emitter_moved.connected_to(note, app):
        streams.adopt(emitter, None)
        streams.note_moved_out(stream_of(emitter))
        streams.note_moved_out(stream_of(emitter))
        scheduler.run_jobs()
    assert told == [("in", emitter), ("out", emitter)]


def test_signal_that_only_another_app_listens_to_is_not_prepared(scheduler: ManualScheduler) -> None:
    """Else each stream of this one would be kept for a while once it has ended, and a context pushed for nobody."""
    app, other = Flask("this one"), Flask("another one")
    streams = StreamRegistry(DEFAULTS, scheduler, app)
    for listening, jobs in [(other, 0), (app, 1)]:
        with emitter_moved.connected_to(lambda *_, **__: None, listening):
            streams.adopt(emitter_at(scheduler, 0), None)
        assert len(scheduler.jobs) == jobs


def test_counting_many_streams_yields_to_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    monkeypatch.setattr(streams_module, "yield_if_due", lambda: turns.append(1))
    streams = StreamRegistry(DEFAULTS)
    for _ in range(10 * streams_module.COUNTED_AT_ONCE):
        streams.admit(SseEmitter())
    assert streams.counts()["clients"] == 10 * streams_module.COUNTED_AT_ONCE
    assert len(turns) == 10


def test_registry_keeps_nothing_of_readers_and_addresses_that_left(scheduler: ManualScheduler) -> None:
    """Not of one that had completed before a response carried it, either."""
    settings = replace(DEFAULTS, max_clients_per_identity=5, max_clients_per_address=5)
    streams = StreamRegistry(settings, scheduler)
    emitters = [emitter_at(scheduler, 0) for _ in range(6)]
    for number, emitter in enumerate(emitters):
        stream = stream_of(emitter)
        stream.reader = Reader((f"user {number % 2}",), ("a",))
        stream.attach(settings, streams)
        streams.enlist(stream)
        if number == 5:
            emitter.complete()
        streams.admit(emitter, f"192.0.2.{number % 3}")
    assert (len(streams), len(streams._owned), len(streams._limits)) == (6, 2, 5)
    for emitter in emitters[:5]:
        stream_of(emitter).release(ConnectionError())
    scheduler.pass_time(settings.attach_seconds)
    assert (len(streams), len(streams._owned), len(streams._limits)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("channel", "user", "has_reader", "is_kept"),
    [("a", "ann", True, True), ("a", "", True, False), ("public", "ann", False, False)],
    ids=["with an identity", "without one", "public channel"],
)
def test_request_is_kept_only_for_stream_with_identity(
    channel: str, user: str, has_reader: bool, is_kept: bool
) -> None:
    board = Board(lambda channel: by_header(channel) or True)
    board.sse.channel("public", public=True)
    with board.open(channel, user=user):
        reader = stream_of(board.emitters[0]).reader
    assert (reader is not None) is has_reader
    assert (reader is not None and reader.request is not None) is is_kept


def test_forked_child_counts_only_its_own_streams(in_child: Callable[[Callable[[], object]], str]) -> None:
    streams = StreamRegistry(replace(DEFAULTS, max_clients=2))
    for _ in range(2):
        streams.admit(SseEmitter())

    def admit() -> tuple[int, int]:
        streams.admit(SseEmitter())
        return len(streams), streams.refused

    with streams.lock:  # held at the fork
        assert in_child(admit) == "(1, 0)"
    assert len(streams) == 2


def test_drain_waits_for_grace_and_cuts_streams_at_timeout(scheduler: ManualScheduler) -> None:
    settings = replace(DEFAULTS, drain_seconds=4, attach_seconds=1000)
    registry = StreamRegistry(settings, scheduler)

    def admit() -> tuple[SseEmitter, int | None]:
        emitter = emitter_at(scheduler, 0)
        stream_of(emitter).attach(settings, registry)
        return emitter, registry.admit(emitter)

    writers = [FakeWriter(admit()[0]) for _ in range(100)]
    first = writers[0]
    drain(registry, grace=1)
    drain(registry, grace=2)
    late, retry = admit()
    assert retry is not None
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


def test_drain_lets_the_client_of_a_stream_that_has_finished_read_its_end(scheduler: ManualScheduler) -> None:
    """It has the time of those that are still to finish, and is cut when that is over."""
    registry = StreamRegistry(replace(DEFAULTS, drain_seconds=4, write_seconds=0), scheduler)
    registry.seconds_to_finish = lambda: 20.0
    emitter = emitter_at(scheduler, 0, drain="finish")
    stream_of(emitter).attach(registry.settings, registry)
    registry.admit(emitter)
    writer = FakeWriter(emitter)
    emitter.send("the end of it")
    drain(registry)
    scheduler.pass_time(3)
    emitter.complete()
    scheduler.pass_time(16)
    assert (emitter.close_reason, writer.cuts) == (CloseReason.COMPLETED, 0)
    scheduler.pass_time(3)
    assert writer.cuts == 1


def test_drain_at_exit_ends_streams_that_were_still_in_their_grace(scheduler: ManualScheduler) -> None:
    registry = StreamRegistry(replace(DEFAULTS, drain_seconds=100), scheduler)
    emitter = emitter_at(scheduler, 0)
    stream_of(emitter).attach(registry.settings, registry)
    registry.admit(emitter)
    drain(registry, grace=50)
    scheduler.pass_time(1)
    assert emitter.is_open
    drain(registry)
    scheduler.pass_time(0.1)
    assert emitter.close_reason is CloseReason.SHUTDOWN


def test_gap_of_a_stream_that_has_just_left_sends_no_signal(scheduler: ManualScheduler) -> None:
    """It would be one without the emitter, which receivers are promised."""
    app, told = Flask(__name__), list[SseEmitter]()

    def note(_: Flask, *, emitter: SseEmitter, requested: str) -> None:
        told.append(emitter)

    streams = StreamRegistry(DEFAULTS, scheduler, app)
    staying, leaving = emitter_at(scheduler, 0), emitter_at(scheduler, 0)
    for emitter in (staying, leaving):
        stream_of(emitter).attach(DEFAULTS, streams)
        streams.admit(emitter)
    streams.leave(stream_of(leaving))
    with gap_sent.connected_to(note, app):
        for emitter in (staying, leaving):
            streams.note_gap(stream_of(emitter), "1-1")
        scheduler.run_jobs()
    assert (told, streams.traffic.gaps) == ([staying], 2)
