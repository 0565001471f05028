"""A stream that is handed off to the event loop under every interleaving with senders."""

from __future__ import annotations

from typing import Any

import pytest

from flask_sse_emitters import SseEmitters
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.streams.stream import Stream
from flask_sse_emitters.testing import decode
from flask_sse_emitters.writers import response_body as wsgi
from flask_sse_emitters.writers import socket_writer as direct
from flask_sse_emitters.writers.response_body import ResponseBody
from flask_sse_emitters.writers.socket_writer import SocketWriter
from tests.concurrency.interleavings import Scene
from tests.concurrency.stage import LOOP, Every, Stage
from tests.unit.doubles.writer import FakeWriter


class Socket:
    """A socket that takes ``room`` bytes, and then no more until it has room again."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.got = b""
        self.is_awaited = False

    def send(self, data: Any) -> int:
        if not self.room:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.got += taken
        return len(taken)

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...

    def recv(self, _size: int) -> bytes:
        return b""

    def body(self) -> bytes:
        """Return what was sent, without the chunk lengths."""
        rest, body = self.got, b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            body += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return body


class FakeMonitor:
    """A stand-in for the process's one epoll."""

    def watch(self, client: Any, watcher: Any) -> Any:
        client.is_registered = client.shows_hang_up = True
        client.watcher = watcher
        return client

    def await_room(self, watch: Any) -> None:
        watch.is_awaited = True

    def unsent(self, _watch: Any) -> int | None:
        return None

    def acknowledged(self, _watch: Any) -> int | None:
        return None

    def forget(self, watch: Any) -> None: ...


@pytest.mark.parametrize("room", [10_000, 20])
def test_handoff_during_sends_keeps_all_events_in_order(
    room: int, stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main loop writes to the client while a foreign thread sends to its list and to its emitter."""
    stage.have_one_loop()
    monkeypatch.setattr(direct, "SOCKET_MONITOR", FakeMonitor())

    def scene() -> Scene:
        clients = SseEmitters()
        emitter = clients.add(stage.emitter())
        socket: Any = Socket(room)
        before = FakeWriter(emitter)

        def write_directly() -> None:
            before.take_all()
            writer = SocketWriter(stream_of(emitter), socket, True, socket, ())
            if stream_of(emitter).take_over(writer):
                writer.begin()
            while True:
                stage.explorer.rest(lambda: bool(stage.background._soon) or socket.is_awaited)
                if socket.is_awaited:
                    socket.is_awaited, socket.room = False, room
                    writer.on_room()
                stage.background._call_one()

        def send() -> None:
            clients.send("a")
            emitter.send("b")
            clients.send("c")
            clients.complete()

        def check() -> None:
            assert [event.data for event in decode(b"".join(before.got) + socket.body())] == ["a", "b", "c"]
            assert socket.got.endswith(b"0\r\n\r\n")

        return Scene({"send": send}, check, {LOOP: write_directly})

    every(scene, takes=3)


def test_list_send_while_server_writes_preamble_is_delivered(
    stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's write yields to the event loop, which delivers before the stream's writer is decided."""
    stage.have_one_loop()
    monkeypatch.setattr(direct, "SOCKET_MONITOR", FakeMonitor())
    monkeypatch.setattr(wsgi, "SOCKET_MONITOR", FakeMonitor())
    monkeypatch.setattr(wsgi, "why_not", lambda _facts: None)
    monkeypatch.setattr(wsgi, "_client_socket", lambda environ: environ["socket"])

    def hand_off(stream: Stream, call: Any, watch: Any, when_over: Any) -> None:
        writer = SocketWriter(stream, call.environ["socket"], True, watch, when_over)
        if stream.take_over(writer):
            writer.begin()

    monkeypatch.setattr(wsgi, "hand_off", hand_off)

    def scene() -> Scene:
        clients = SseEmitters()
        socket: Any = Socket(10_000)
        environ = {"socket": socket, "SERVER_PROTOCOL": "HTTP/1.1"}
        stream = ResponseBody(stream_of(clients.add(stage.emitter())), b": hello\n\n", environ, "on")
        body: list[bytes] = []

        def serve() -> None:
            body.append(next(stream))
            stage.explorer.pause("writes")
            if stage.background._soon:
                stage.background._call_one()
            body.extend(stream)
            while True:
                stage.explorer.rest(lambda: bool(stage.background._soon))
                stage.background._call_one()

        def check() -> None:
            assert [event.data for event in decode(b"".join(body) + socket.body())] == ["a", "b"]

        def send() -> None:
            clients.send("a")
            clients.send("b")

        return Scene({"send": send}, check, {LOOP: serve})

    every(scene, takes=3)


@pytest.mark.parametrize("is_first", [True, False])
def test_handoff_on_threads_is_written_by_one_thread_alone(
    is_first: bool, stage: Stage, every: Every, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Senders deliver to a client that the server writes, in the same list, on their own threads meanwhile."""
    stage.have_one_writer()
    monkeypatch.setattr(direct, "SOCKET_MONITOR", FakeMonitor())

    def scene() -> Scene:
        clients = SseEmitters()
        emitters = [clients.add(stage.emitter()) for _ in range(2)]
        handed_off, served = emitters if is_first else emitters[::-1]
        socket: Any = Socket(10_000)
        writers: set[str | None] = set()
        send_bytes = socket.send

        def note(data: bytes) -> int:
            writers.add(stage.explorer.name())
            sent: int = send_bytes(data)
            return sent

        socket.send = note
        before, beside = FakeWriter(handed_off), FakeWriter(served)

        def write_directly() -> None:
            before.take_all()
            writer = SocketWriter(stream_of(handed_off), socket, True, socket, ())
            if stream_of(handed_off).take_over(writer):
                writer.begin()
            while True:
                stage.explorer.rest(lambda: bool(stage.background._soon))
                stage.background._call_one()

        def check() -> None:
            beside.take_all()
            texts = [event.data for event in decode(b"".join(before.got) + socket.body())]
            assert texts == [event.data for event in decode(b"".join(beside.got))] == ["a", "b"]
            assert writers <= {LOOP}

        def send() -> None:
            clients.send("a")
            clients.send("b")

        return Scene({"send": send}, check, {LOOP: write_directly})

    every(scene, takes=3)
