"""Why a stream stays in a worker that stops: each reason as ``sse.stats()["moved"]["refused"]`` names it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from flask_sse_emitters import SseEmitter
from flask_sse_emitters.moving.packing import Packed, pack
from flask_sse_emitters.runtime.scheduler import SCHEDULER
from flask_sse_emitters.runtime.socket_monitor import Watch
from flask_sse_emitters.streams.emitter import stream_of
from flask_sse_emitters.writers.movable_writer import MovableWriter
from tests.support.board import Board
from tests.support.brokers.held_broker import HeldBroker
from tests.support.waiting import PATIENCE, until

T = TypeVar("T")

Pair = tuple[socket.socket, socket.socket]


def on_writing_thread(call: Callable[[], T]) -> T:
    done: list[T] = []
    SCHEDULER.call_soon(lambda: done.append(call()))
    until(lambda: done, "the call")
    return done[0]


def hand_off(emitter: SseEmitter, pair: Pair) -> None:
    """Have the stream written to a socket of its own, as one that is handed off."""
    server, client = pair
    server.setblocking(False)
    client.settimeout(PATIENCE)
    stream = stream_of(emitter)

    def take_over() -> None:
        writer = MovableWriter(stream, server, True, Watch(-1, None), ())
        stream.begin(writer)
        stream.take_over(writer)
        writer.go_on(b"")

    on_writing_thread(take_over)


def packed(emitter: SseEmitter) -> Packed | str:
    """Pack the stream, and let it go on here."""

    def pack_and_thaw() -> Packed | str:
        found = pack(stream_of(emitter))
        if isinstance(found, Packed):
            found.writer.thaw()
        return found

    return on_writing_thread(pack_and_thaw)


def subscribed(board: Board) -> SseEmitter:
    state = board.sse.find_state()
    with board.app.test_request_context():
        emitter = board.sse.channel("a").subscribe()
    stream_of(emitter).attach(state.settings, state.streams)
    return emitter


def read_up_to(client: socket.socket, last: bytes) -> None:
    got = b""
    while last not in got:
        more = client.recv(1_000_000)
        assert more
        got = got[-len(last) :] + more


def test_stream_of_a_client_with_much_to_read_is_slow_and_goes_on_here(pair: Pair) -> None:
    board = Board(SSE_MAX_PENDING_BYTES=10**9)
    emitter = subscribed(board)
    hand_off(emitter, pair)
    until(lambda: isinstance(packed(emitter), Packed), "its beginning to be written")
    board.publish("a", *("x" * 500_000 for _ in range(40)), "the last one")
    until(lambda: emitter.pending, "its socket to be full")
    assert packed(emitter) == "slow"
    read_up_to(pair[1], b"data: the last one\n")
    until(lambda: isinstance(packed(emitter), Packed), "it to be able to move")
    emitter.complete()


def test_stream_that_has_not_found_its_position_is_catching_up(pair: Pair) -> None:
    board, broker = Board(), HeldBroker()
    board.sse.find_state().channels.broker = broker
    emitter = subscribed(board)
    hand_off(emitter, pair)
    assert packed(emitter) == "catching up"
    broker.start("a")
    until(lambda: isinstance(packed(emitter), Packed), "the position")
    board.publish("a", "x")
    broker.deliver("a")
    read_up_to(pair[1], b"data: x\n")
    emitter.complete()


def test_stream_with_an_end_of_its_own_is_to_finish(pair: Pair) -> None:
    emitter = SseEmitter(drain="finish")
    hand_off(emitter, pair)
    assert packed(emitter) == "it is to finish"
    emitter.complete()


def test_stream_that_the_server_writes_is_not_handed_off() -> None:
    board = Board()
    with board.open("a"):
        assert packed(board.emitters[0]) == "not handed off"
        board.emitters[0].complete()
        assert packed(board.emitters[0]) == "ended"
