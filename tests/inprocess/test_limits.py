"""Limits of open streams, statistics, and the drain at shutdown."""

from __future__ import annotations

import logging
import os
import resource
import threading
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask

from flask_sse_emitters import SSE, CloseReason, SseEmitter, SseEmitters, TooManyClients
from flask_sse_emitters.config.settings import DEFAULTS
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.registry import open_streams as streams_module
from flask_sse_emitters.streams.registry.draining import drain
from flask_sse_emitters.streams.registry.open_streams import StreamRegistry
from flask_sse_emitters.testing import open_stream
from tests.support.board import Board
from tests.support.client import connected, get, post
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.unit.doubles.clock import ManualScheduler, emitter_at


def test_stream_beyond_limit_ends_with_a_random_retry(caplog: pytest.LogCaptureFixture) -> None:
    board = Board(SSE_MAX_CLIENTS=3)
    ends: list[BaseException] = []
    emitters = SseEmitters()

    @board.app.get("/mine")
    def mine() -> Any:
        emitter = emitters.add(SseEmitter())
        emitter.send("connected!")
        emitter.on_error(ends.append)
        return emitter

    with ExitStack() as stack:
        for path in ("/mine", "/events/a", "/mine"):
            stack.enter_context(open_stream(board.client, path))
        answers = [board.client.get(path) for path in ("/mine", "/events/a") * 10]
        assert {answer.status_code for answer in answers} == {200}, "an error would stop an EventSource for good"
        assert {answer.content_type for answer in answers} == {"text/event-stream"}
        retries = [int(answer.text.split("\n")[0].removeprefix("retry: ")) for answer in answers]
        assert {answer.text.split("\n", 1)[1] for answer in answers[::2]} == {"\n"}, "no event that its view sent"
        assert all(1500 <= retry <= 6000 for retry in retries)
        assert len(set(retries)) > 5
        assert (len(emitters), board.sse.channel("a").subscribers()) == (2, 1)
        stats = board.sse.stats()
        assert (stats["clients"], stats["opened"], stats["refused"]) == (3, 3, 20)
    until(lambda: len(ends) == 12, "the callbacks")
    assert all(isinstance(error, TooManyClients | ConnectionError) for error in ends)
    assert [record.levelno for record in caplog.records if "SSE_MAX_CLIENTS=3" in record.message] == [logging.WARNING]
    assert board.sse.stats()["clients"] == 0
    with open_stream(board.client, "/mine") as stream:
        assert [event.data for event in stream.ready()] == ["connected!"]


def test_reached_limit_is_logged_once_a_minute(scheduler: ManualScheduler, caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)
    app.config["SSE_MAX_CLIENTS"] = 1
    streams = StreamRegistry(SSE(app).find_state().settings, scheduler)
    streams.admit(SseEmitter())
    for _ in range(61):
        streams.admit(SseEmitter())
        scheduler.pass_time(2)
    assert len([record for record in caplog.records if "SSE_MAX_CLIENTS=1" in record.message]) == 3
    assert (len(streams), streams.refused) == (1, 61)


def test_stats_count_streams_by_close_reason_writer_and_channel() -> None:
    board = Board()
    made: list[SseEmitter] = []

    @board.app.get("/mine")
    def mine() -> Any:
        made.append(SseEmitter())
        return made[-1]

    with open_stream(board.client, "/mine") as stream:
        made[-1].complete()
        stream.ready()
    with open_stream(board.client, "/mine") as stream:
        made[-1].complete_with_error(RuntimeError())
        stream.ready()
    with open_stream(board.client, "/mine"):
        pass
    stats = board.sse.stats()
    assert stats["closed"] == {"completed": 1, "error": 1, "disconnected": 1}
    assert (stats["clients"], stats["opened"], stats["channels"], stats["warnings"]) == (0, 3, {}, [])
    with open_stream(board.client, "/mine") as one, board.open("a", "b") as two:
        made[-1].send("x")
        board.publish("a", "x")
        assert len(one.ready() + two.ready()) == 2
        stats = board.sse.stats()
    assert stats["outlets"] == {"handed_off": 0, "server": 2}
    assert stats["declined"] == {"the server is not gunicorn with its gevent worker": 2}
    assert stats["channels"] == {"a": 1, "b": 1}
    assert stats["broker"] == {"scheme": "memory", "state": "ok"}


def test_emitter_with_dropped_response_is_not_counted() -> None:
    board = Board(SSE_ATTACH_SECONDS=0.05)

    @board.app.get("/dropped")
    def dropped() -> str:
        SseEmitter().response()
        return "something else"

    board.client.get("/dropped")
    until(lambda: board.sse.stats()["clients"] == 0, "its end")
    assert board.sse.stats()["closed"] == {"error": 1}


@pytest.mark.parametrize(("limit", "warns"), [(1024, True), (964, False), (resource.RLIM_INFINITY, False)])
def test_low_file_limit_is_warned_of_at_first_stream(
    limit: int, warns: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the app is made: a shell or a Celery worker has no clients."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    board = Board(SSE_MAX_CLIENTS=10_000 if warns else 900)
    assert board.sse.stats()["warnings"] == []
    with board.open("a"):
        warnings = board.sse.stats()["warnings"]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == warnings
    assert len(warnings) == warns
    for part in ("SSE_MAX_CLIENTS=10000", "1024 files", "it takes 960 clients", "10064 (ulimit -n", "LimitNOFILE="):
        assert not warns or part in warnings[0]


def test_stream_beyond_file_limit_ends_with_retry(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (66, 4096))
    board = Board()
    with board.open("a"), board.open("a"):
        answer = board.client.get("/events/a")
        stats = board.sse.stats()
    assert (answer.status_code, answer.text.partition(" ")[0]) == (200, "retry:")
    assert (stats["max_clients"], stats["clients"], stats["refused_by"]) == (2, 2, {"RLIMIT_NOFILE": 1})
    assert any("than RLIMIT_NOFILE=66 (less 64 for other files)" in record.message for record in caplog.records)


def test_gthread_with_low_file_limit_has_one_warning() -> None:
    """The file limit allows fewer streams than there are threads, so no warning about threads is added."""
    few = ["bash", "-c", 'ulimit -n 70; exec "$@"', "-"]  # room for 6 streams
    with Server("gthread", "tests.apps.channels:app", before=few, arguments=["--threads", "8"]) as server:
        with connected(server, "/events/a"):
            warnings = get(server, "/stats")["warnings"]
    assert ["it takes 6 clients" in each for each in warnings] == [True]


@pytest.mark.parametrize("kind", ["gevent", "gthread"])
def test_worker_at_stream_limit_answers_other_requests(kind: str) -> None:
    """Its limit of open files is low, as in an old shell."""
    few = ["bash", "-c", 'ulimit -n 256; exec "$@"', "-"]
    with Server(kind, "tests.apps.channels:app", before=few) as server, ExitStack() as stack:
        streams = [stack.enter_context(connected(server, "/events/a")) for _ in range(230)]
        assert post(server, "/publish/a", "x")
        stats = get(server, "/stats")
        assert (stats["clients"], stats["refused_by"]) == (192, {"RLIMIT_NOFILE": 38})
        assert all(b"retry: " in stream.rest() for stream in streams[192:])
        assert streams[0].texts(1) == ["x"]


@pytest.mark.parametrize("multiprocess", [True, False])
def test_memory_broker_on_multiprocess_server_is_warned_of_at_first_stream(multiprocess: bool) -> None:
    board = Board()
    for _ in range(2):
        with open_stream(board.client, "/events/a", environ_overrides={"wsgi.multiprocess": multiprocess}):
            pass
    warnings = board.sse.stats()["warnings"]
    assert ["SSE_BROKER_URL='memory://' reaches the clients of one process" in each for each in warnings] == (
        [True] if multiprocess else []
    )


# Drain, with a clock that the test moves.


def test_drain_waits_for_grace_and_cuts_streams_at_timeout(scheduler: ManualScheduler) -> None:
    app = Flask(__name__)
    app.config.update(SSE_DRAIN_SECONDS=4, SSE_ATTACH_SECONDS=1000)
    settings = SSE(app).find_state().settings
    streams = StreamRegistry(settings, scheduler)
    emitters = [emitter_at(scheduler, 0) for _ in range(100)]
    writers = [RecordingWriter() for _ in emitters]
    for emitter, writer in zip(emitters, writers, strict=True):
        stream_of(emitter).attach(settings, streams)
        assert streams.admit(emitter) == 3000
        stream_of(emitter).begin(writer)
    drain(streams, grace=1)
    drain(streams)
    late = emitter_at(scheduler, 0)
    stream_of(late).attach(settings, streams)
    assert 1500 <= streams.admit(late) <= 6000
    assert (late.close_reason, len(streams)) == (CloseReason.SHUTDOWN, 100)
    scheduler.pass_time(0.9)
    assert all(emitter.is_open for emitter in emitters)
    emitters[0].send("just in time")
    scheduler.pass_time(0.2)
    assert {emitter.close_reason for emitter in emitters} == {CloseReason.SHUTDOWN}
    assert stream_of(emitters[0]).next_output() == b"data: just in time\n\n"
    closing = stream_of(emitters[0]).next_output()
    assert closing is not None
    assert closing.startswith(b"retry: ")
    assert stream_of(emitters[0]).next_output() is None
    stream_of(emitters[0]).release(ConnectionError())
    assert len(streams) == 99
    scheduler.pass_time(2.8)
    assert not any(writer.cuts for writer in writers)
    scheduler.pass_time(0.2)
    assert all(writer.cuts == 1 for writer in writers[1:])
    assert streams.closed == {"shutdown": 1}


class RecordingWriter:
    declined: str | None = None

    def __init__(self) -> None:
        self.cuts = 0

    def wake(self) -> None: ...

    def wake_with(self, payload: bytes) -> None: ...

    def cut(self) -> None:
        self.cuts += 1

    def unsent(self) -> int | None:
        return None

    def acknowledged(self) -> int | None:
        return None


def test_counting_many_streams_yields_to_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    monkeypatch.setattr(streams_module, "yield_if_due", lambda: turns.append(1))
    streams = StreamRegistry(DEFAULTS)
    for _ in range(10 * streams_module.COUNTED_AT_ONCE):
        streams.admit(SseEmitter())
    assert streams.counts()["clients"] == 10 * streams_module.COUNTED_AT_ONCE
    assert len(turns) == 10


def test_stats_while_channels_open_and_close_raise_no_error() -> None:
    board, stop, errors = Board(), threading.Event(), []

    def open_and_close() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            with board.open(f"user:{number}", f"other:{number}"):
                pass

    thread = threading.Thread(target=open_and_close)
    thread.start()
    try:
        for _ in range(2000):
            try:
                board.sse.stats()
            except RuntimeError as error:
                errors.append(error)
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert errors == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_counts_only_its_own_streams() -> None:
    board = Board(SSE_MAX_CLIENTS=2)
    reader, writer = os.pipe()
    with (
        board.open("a") as stream,
        board.open("a"),
        board.sse.find_state().streams.lock,
    ):  # held at the fork
        child = os.fork()
        if child == 0:
            try:
                with board.open("a"):
                    stats = board.sse.stats()
                os.write(writer, f"{stats['clients']} {stats['refused']}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(reader, 100) == b"1 0"
        board.publish("a", "x")
        assert [event.data for event in stream.ready()] == ["x"]
    os.close(reader)
    os.close(writer)


def test_completed_stream_is_delivered_after_shutdown() -> None:
    board = Board()

    @board.app.get("/report")
    def report() -> Any:
        emitter = SseEmitter()
        emitter.send("all of it")
        emitter.complete()
        return emitter

    board.sse.shutdown()
    with open_stream(board.client, "/report") as stream:
        assert [event.data for event in stream.ready()] == ["all of it"]


def test_shutdown_inside_a_callback_returns() -> None:
    board, done = Board(SSE_DRAIN_SECONDS=60), threading.Event()

    @board.app.get("/mine")
    def mine() -> Any:
        emitter = SseEmitter()

        @emitter.on_completion
        def stop() -> None:
            board.sse.shutdown()
            done.set()

        return emitter

    with open_stream(board.client, "/mine"):
        pass
    assert done.wait(PATIENCE)
