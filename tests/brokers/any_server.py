"""What holds for each server that keeps channels, whatever it is."""

from __future__ import annotations

import subprocess
import sys
from typing import Protocol

import pytest

from tests.brokers.states import await_state
from tests.support.board import Board, read, texts
from tests.support.client import Client, get, post
from tests.support.servers import ROOT, Server
from tests.support.waiting import until
from tests.support.wire import Wire


class Restartable(Protocol):
    def kill(self) -> None: ...
    def start(self) -> None: ...


def check_streams_during_restart(
    server: Restartable, http: Server, board: Board, client: Client, other: Client
) -> None:
    """Check that workers keep the streams of two clients of a channel "a", which are not counted once they have shut
    down.

    :param board: another app at this server, in this process.
    """
    post(http, "/publish/a", 1)
    assert (client.texts(1), other.texts(1)) == (["1"], ["1"])
    server.kill()
    with pytest.raises(AssertionError, match="Internal Server Error"):
        post(http, "/publish/a", 2)
    received = b""
    while received.count(b":\n") < 5:  # heartbeats continue
        received += client.read_some()
    server.start()
    until(lambda: get(http, "/stats")["broker"]["state"] == "ok", "the server to be back")
    post(http, "/publish/a", 3)
    assert (client.texts(1), other.texts(1)) == (["3"], ["3"])
    assert get(http, "/stats")["warnings"] == []
    until(lambda: board.sse.channel("a").subscribers() == 2, "their clients")
    until(board.sse.processes, "their figures")
    http.stop()  # waits until they have ended
    assert (board.sse.channel("a").subscribers(), board.sse.processes()) == (0, [])


def check_refusal_of_unpatched_sockets(url: str) -> None:
    """Check that greenlets may not publish or subscribe where gevent's sockets are not patched, and others may."""
    program = f"""
import gevent
from flask_sse_emitters import UnsupportedWorker
from tests.support.board import Board

board = Board(SSE_BROKER_URL={url!r})
print(board.publish("a", 1)[0][-2:])

def attempt(use):
    try:
        with board.app.test_request_context():
            use()
    except UnsupportedWorker as error:
        print(error)

for use in [lambda: board.publish("a", 2)] + 2 * [board.sse.channel("a").subscribe]:
    gevent.spawn(attempt, use).join()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    first, *refused = done.stdout.splitlines()
    assert first == "-1"
    assert ["call gevent.monkey.patch_all() first" in text for text in refused] == [True, True, True]


def check_order_after_reconnect(wire: Wire, wired: Board, board: Board) -> None:
    """Check that a process gets what it missed in order, and then what is new.

    :param wired: an app that reaches the server over the wire, in the state "ok".
    :param board: another one, which reaches it all the time.
    """
    with wired.open("a", "b") as stream:
        wired.publish("a", 0)
        read(stream, 1)
        wire.is_closed = True
        wire.cut()
        await_state(wired, "degraded")
        for number in range(1, 50):
            board.publish("ab"[number % 2], number)
        assert stream.ready() == []
        wire.is_closed = False
        await_state(wired, "ok")
        numbers = [int(event.data) for event in read(stream, 49)]
        assert [number for number in numbers if number % 2] == [*range(1, 50, 2)]
        assert [number for number in numbers if not number % 2] == [*range(2, 50, 2)]
        board.publish("a", "new")
        assert texts(read(stream, 1)) == ["new"]
