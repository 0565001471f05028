"""Redis answers no more: the subscriber notices by a ping, and publishers time out."""

from __future__ import annotations

import signal
import socket
import threading
import time
from functools import partial
from typing import Any

import pytest

from flask_sse_emitters import BrokerUnavailable
from flask_sse_emitters.brokers import make_broker
from tests.brokers.states import await_state, broker_state
from tests.support.board import Board, closing_board, read, texts
from tests.support.broker_calls import KEPT, frame
from tests.support.redis_server import RedisServer
from tests.support.waiting import until


def test_pause_of_redis_is_noticed_by_ping_and_subscriber_recovers(server: RedisServer, board: Board) -> None:
    with board.open("a") as stream:
        board.publish("a", 1)
        read(stream, 1)
        server.signal(signal.SIGSTOP)
        found = await_state(board, "degraded")
        server.signal(signal.SIGCONT)
        assert "listening" in found["error"]
        await_state(board, "ok")
        board.publish("a", 2)
        assert texts(read(stream, 1)) == ["2"]


def test_pause_makes_publish_time_out_and_key_makes_retry_safe(server: RedisServer, board: Board) -> None:
    """A short pause, which only the publisher notices, counts as over some seconds after the next message."""
    with closing_board(server.url, SSE_PUBLISH_SECONDS=0.2) as hasty, hasty.open("a") as stream:
        hasty.publish("a", 1)
        read(stream, 1)
        server.signal(signal.SIGSTOP)
        with pytest.raises(BrokerUnavailable):
            hasty.sse.publish("a", "2", key="k")
        server.signal(signal.SIGCONT)
        assert "publishing" in broker_state(hasty)["error"]
        event_id = board.sse.publish("a", "2", key="k")
        board.publish("a", 3)
        assert texts(read(stream, 2)) == ["2", "3"]
        await_state(hasty, "ok")
        assert until(partial(published, hasty, "2", "k"), "the server to go on") == event_id


def published(board: Board, text: str, key: str) -> str | None:
    try:
        return board.sse.publish("a", text, key=key)
    except BrokerUnavailable:
        return None


def test_publish_timeout_covers_all_round_trips() -> None:
    """The server takes more than half of the timeout for each answer, and a new connection needs several."""
    answers: list[float] = []

    def serve(listener: Any) -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(65536) and not ends.wait(0.3):
                answers.append(time.monotonic())
                connection.sendall(b"+OK\r\n")

    ends = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        broker = make_broker(f"redis://127.0.0.1:{listener.getsockname()[1]}", publish_seconds=0.5)
        with pytest.raises(BrokerUnavailable):
            broker.publish("a", frame("x"), KEPT)
        answered = len(answers)
        ends.set()
        broker.close()
        thread.join()
    assert answered < 3


@pytest.mark.parametrize(("kind", "path"), [("rediss", ""), ("redis+sentinel", "/mymaster")])
def test_publish_timeout_covers_tls_and_sentinels_that_are_silent(kind: str, path: str) -> None:
    """Long before redis-py itself would give up."""
    done: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = make_broker(f"{kind}://127.0.0.1:{silent.getsockname()[1]}{path}", publish_seconds=0.3)

        def publishing() -> None:
            try:
                broker.publish("a", frame("x"), KEPT)
            except BrokerUnavailable as error:
                done.append(error)

        threading.Thread(target=publishing, daemon=True).start()
        until(lambda: done, "publish to time out", seconds=5)  # those that redis-py would wait
        broker.close()
