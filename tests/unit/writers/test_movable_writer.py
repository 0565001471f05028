"""A client that another process has given: what is written to it, in which order."""

from __future__ import annotations

import socket

from flask_sse_emitters import SseEmitter, SseEmitters
from flask_sse_emitters.runtime.scheduler import SCHEDULER
from flask_sse_emitters.runtime.socket_monitor import Watch
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.writers.movable_writer import MovableWriter
from tests.support.waiting import PATIENCE, until

#: Events as they are on the wire, each in a chunk.
FIRST, SECOND = b"9\r\ndata: 1\n\n\r\n", b"9\r\ndata: 2\n\n\r\n"


def test_movable_writer_writes_what_was_left_before_newer_events(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    server, client = pair
    server.setblocking(False)
    emitter, emitters, writers = SseEmitter(), SseEmitters(), list[MovableWriter]()
    emitters.add(emitter)
    stream = stream_of(emitter)

    def adopt() -> None:
        writer = MovableWriter(stream, server, True, Watch(-1, None), ())
        stream.begin(writer)
        stream.take_over(writer)
        writer.go_on(FIRST)
        emitters.send(2)  # in the same call of the thread that writes: before it has written what was left
        writers.append(writer)

    SCHEDULER.call_soon(adopt)
    [writer] = until(lambda: writers, "the event to be sent")
    client.settimeout(PATIENCE)
    received = b""
    while len(received) < len(FIRST + SECOND):
        received += client.recv(1_000)
    assert received == FIRST + SECOND
    SCHEDULER.call_soon(writer.give_up)
    until(lambda: server.fileno() < 0, "the client to be let go")
